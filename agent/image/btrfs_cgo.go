//go:build linux && cgo

package image

import (
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/plugins/snapshots/btrfs"
)

// openBtrfs needs cgo: the ioctls of btrfs are taken from the kernel's headers.
func openBtrfs(dir string) (snapshots.Snapshotter, error) { return btrfs.NewSnapshotter(dir) }
