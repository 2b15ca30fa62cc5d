package btrfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// checkFileSystem refuses a folder that is not on btrfs.
func checkFileSystem(dir string) error {
	var stat unix.Statfs_t
	if err := unix.Statfs(dir, &stat); err != nil {
		return fmt.Errorf("look at the file system of %s: %w", dir, err)
	}
	if stat.Type != unix.BTRFS_SUPER_MAGIC {
		return fmt.Errorf("%s is not on btrfs", dir)
	}
	return nil
}

// path is where the subvolume of a snapshot is, by the metadata store's ID.
func (s *snapshotter) path(id string) string { return filepath.Join(s.root, "snapshots", id) }

// make makes the subvolume of a new snapshot. What is in its place was left by a
// process that died before it could record it: IDs are given once.
func (s *snapshotter) make(id string, parents []string, readOnly bool) error {
	target := s.path(id)
	if err := destroySubvolume(target); err != nil {
		return err
	}
	if len(parents) == 0 {
		if err := createSubvolume(target); err != nil {
			return err
		}
		// The root of a container's file system, whatever our own umask is.
		if err := os.Chmod(target, 0o755); err != nil {
			return err
		}
	} else if err := snapshotSubvolume(target, s.path(parents[0])); err != nil {
		return err
	}
	return setReadOnly(target, readOnly)
}

// sweep removes subvolumes that no snapshot has: a process that died left them
// between the two steps of making or removing one.
func (s *snapshotter) sweep(known map[string]bool) error {
	entries, err := os.ReadDir(filepath.Join(s.root, "snapshots"))
	if err != nil {
		return err
	}
	var errs []error
	for _, entry := range entries {
		if !known[entry.Name()] {
			errs = append(errs, destroySubvolume(s.path(entry.Name())))
		}
	}
	return errors.Join(errs...)
}
