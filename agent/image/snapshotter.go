package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/plugins/snapshots/native"
	"github.com/containerd/containerd/v2/plugins/snapshots/overlay"
	"github.com/containerd/errdefs"

	"lighter.dev/lighter/agent/image/btrfs"
)

// The storage drivers that an agent can be configured with.
const (
	// Overlayfs stacks layers by the kernel's overlay file system. The default.
	Overlayfs = "overlayfs"
	// Native copies whole trees: slow, but works on any file system.
	Native = "native"
	// Btrfs uses subvolumes; Config.Root has to be on btrfs.
	Btrfs = "btrfs"
)

// Snapshotters are the drivers by name, in the order they are documented.
func Snapshotters() []string { return []string{Overlayfs, Native, Btrfs} }

// openSnapshotter opens the named driver in its own folder below root, so that
// a changed driver never meets the files of another.
func openSnapshotter(ctx context.Context, name, root string) (snapshots.Snapshotter, error) {
	dir := filepath.Join(root, "snapshots-"+name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	var (
		sn  snapshots.Snapshotter
		err error
	)
	switch name {
	case Overlayfs:
		sn, err = overlay.NewSnapshotter(dir)
	case Native:
		sn, err = native.NewSnapshotter(dir)
	case Btrfs:
		sn, err = btrfs.New(ctx, dir)
	default:
		return nil, fmt.Errorf("storage driver %q is unknown: use one of %v", name, Snapshotters())
	}
	if err != nil {
		return nil, fmt.Errorf("open storage driver %s in %s (storage-driver %s works on any file system): %w", name, dir, Native, err)
	}
	if err := dropUnnoted(ctx, sn, filepath.Join(dir, "snapshots")); err != nil {
		return nil, errors.Join(fmt.Errorf("clean storage driver %s in %s: %w", name, dir, err), sn.Close())
	}
	return sn, nil
}

// dropUnnoted removes the folders of snapshots that an agent made and, being killed,
// did not come to note in the driver's database. The number of such a snapshot is
// given once more, and its folder would be in the way of the next one.
func dropUnnoted(ctx context.Context, sn snapshots.Snapshotter, dir string) error {
	if c, ok := sn.(snapshots.Cleaner); ok {
		// Before the first snapshot there is no database to compare with.
		if err := c.Cleanup(ctx); err != nil && !errdefs.IsNotFound(err) {
			return err
		}
	}
	unfinished, err := filepath.Glob(filepath.Join(dir, "new-*"))
	if err != nil {
		return err
	}
	for _, path := range unfinished {
		if err := os.RemoveAll(path); err != nil {
			return err
		}
	}
	// A snapshot that cannot be made takes away what is in its place.
	const key = "probe"
	if _, err = sn.Prepare(ctx, key, ""); err != nil && !errdefs.IsAlreadyExists(err) {
		_, err = sn.Prepare(ctx, key, "")
	}
	if err != nil && !errdefs.IsAlreadyExists(err) {
		return err
	}
	return sn.Remove(ctx, key)
}
