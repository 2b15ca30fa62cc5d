package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/testsuite"

	"lighter.dev/lighter/agent/image/btrfs/btrfstest"
)

// driverRoot is a folder on a file system that suits a driver.
func driverRoot(t testing.TB, driver string) string {
	if driver == Btrfs {
		return btrfstest.Mount(t)
	}
	return t.TempDir()
}

// TestDrivers is containerd's suite for snapshotters, on each driver.
func TestDrivers(t *testing.T) {
	needRoot(t)
	for _, driver := range Snapshotters() {
		t.Run(driver, func(t *testing.T) {
			base := driverRoot(t, driver)
			testsuite.SnapshotterSuite(t, driver, func(ctx context.Context, _ string) (snapshots.Snapshotter, func() error, error) {
				root, err := os.MkdirTemp(base, "")
				if err != nil {
					return nil, nil, err
				}
				sn, err := openSnapshotter(ctx, driver, root)
				if err != nil {
					return nil, nil, err
				}
				return sn, func() error { return errors.Join(sn.Close(), removeBelow(driver, root)) }, nil
			})
		})
	}
}

// TestUnnotedSnapshot: an agent was killed between making a snapshot's folder and
// noting it, its first one or a later one. The next start removes the folder, and a
// snapshot of that number can be made.
func TestUnnotedSnapshot(t *testing.T) {
	needRoot(t)
	for _, driver := range []string{Overlayfs, Native} { // btrfs has a test of its own
		for _, before := range []int{0, 2} {
			t.Run(fmt.Sprint(driver, " after ", before), func(t *testing.T) {
				ctx, root := context.Background(), t.TempDir()
				sn, err := openSnapshotter(ctx, driver, root)
				must(t, err)
				for i := range before {
					_, err := sn.Prepare(ctx, fmt.Sprint("kept-", i), "")
					must(t, err)
				}
				must(t, sn.Close())
				dir := filepath.Join(root, "snapshots-"+driver, "snapshots")
				kept := entries(t, dir)
				next := before + 2 // opening it took one
				must(t, os.MkdirAll(filepath.Join(dir, fmt.Sprint(next), "fs"), 0o755))
				must(t, os.MkdirAll(filepath.Join(dir, "new-1234", "fs"), 0o755))
				sn, err = openSnapshotter(ctx, driver, root)
				must(t, err)
				defer sn.Close()
				if n := entries(t, dir); n != kept {
					t.Errorf("%d folders, want %d", n, kept)
				}
				_, err = sn.Prepare(ctx, "next", "")
				must(t, err)
			})
		}
	}
}

// removeBelow keeps the disk of the tests small; the folders of btrfs go with
// their file system.
func removeBelow(driver, root string) error {
	if driver == Btrfs {
		return nil
	}
	return os.RemoveAll(root)
}

// TestWrongFileSystem: a driver says what it lacks, and what to do.
func TestWrongFileSystem(t *testing.T) {
	needRoot(t)
	dir, err := os.MkdirTemp("/dev/shm", "lighter-")
	must(t, err)
	defer os.RemoveAll(dir)
	_, err = Open(context.Background(), Config{Root: dir, Snapshotter: Btrfs})
	if err == nil || !strings.Contains(err.Error(), "is not on btrfs") || !strings.Contains(err.Error(), "storage-driver native") {
		t.Errorf("%v", err)
	}
}
