// Package btrfs is a snapshotter on the subvolumes of a btrfs file system:
// snapshots share blocks, so that a layer costs no more than what it changes, and
// no file is ever copied up.
//
//   - snapshotter.go: containerd's contract (core/snapshots), on its metadata store.
//   - disk.go: the subvolume of each snapshot, and what a crash left of others.
//   - subvolume.go: the kernel's calls.
//
// containerd's own driver needs cgo, which this program is built without; why ours
// also mounts in another way says hack/decisions/0012.
package btrfs
