//go:build !linux || !cgo

package image

import (
	"errors"

	"github.com/containerd/containerd/v2/core/snapshots"
)

// openBtrfs says why this build has no btrfs driver.
func openBtrfs(string) (snapshots.Snapshotter, error) {
	return nil, errors.New("this program was built without cgo, which the btrfs driver needs")
}
