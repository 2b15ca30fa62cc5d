// Package btrfstest gives tests a btrfs file system of their own.
package btrfstest

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// size of the file system, in bytes; the smallest that mkfs.btrfs makes is 109 MiB.
const size = 512 << 20

// Mount makes a btrfs file system in a sparse file and mounts it until the test
// ends. It skips the test where that cannot be done, and says why.
func Mount(t testing.TB) (dir string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: mounts a btrfs file system")
	}
	mkfs, err := exec.LookPath("mkfs.btrfs")
	if err != nil {
		t.Skip("mkfs.btrfs is missing: hack/install-deps.sh --test installs btrfs-progs")
	}
	file := filepath.Join(t.TempDir(), "btrfs.img")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, size); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), mkfs, "-q", file).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.btrfs: %v\n%s", err, out)
	}
	dir = t.TempDir()
	if out, err := exec.CommandContext(t.Context(), "mount", "-t", "btrfs", "-o", "loop", file, dir).CombinedOutput(); err != nil {
		t.Skipf("this kernel mounts no btrfs: %v\n%s", err, out)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount the btrfs file system: %v", err)
		}
	})
	return dir
}
