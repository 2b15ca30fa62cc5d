package image

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// UseTemporary has containerd's and BuildKit's libraries make their temporary files
// and mounts in dir. Both mount a layer or a container's file system for as long as
// they read or write it, and in the system's folder nobody could tell what a killed
// agent has left from what others need. It is global: the program calls it once,
// after SweepTemporary and before it opens a Store.
func UseTemporary(dir string) error {
	if err := mount.SetTempMountLocation(dir); err != nil {
		return fmt.Errorf("folder for temporary mounts: %w", err)
	}
	return os.Setenv("TMPDIR", dir)
}

// SweepTemporary unmounts and removes what a killed agent has left in a folder that
// UseTemporary was given. Nothing is removed while something is mounted in it.
func SweepTemporary(dir string) error {
	dir, err := filepath.EvalSymlinks(dir) // as the kernel names mounts
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	var entries []os.DirEntry
	if err == nil {
		entries, err = os.ReadDir(dir)
	}
	if err != nil {
		return fmt.Errorf("temporary files of the last run: %w", err)
	}
	var errs []error
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if err := unmountAll(path); err != nil {
			errs = append(errs, err)
			continue
		}
		errs = append(errs, os.RemoveAll(path))
	}
	return errors.Join(errs...)
}

// unmountAll takes away every mount at a path and below it, the last one first.
func unmountAll(path string) error {
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(path))
	if err != nil {
		return err
	}
	for i := len(mounts) - 1; i >= 0; i-- {
		if err := unix.Unmount(mounts[i].Mountpoint, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			return fmt.Errorf("unmount %s: %w", mounts[i].Mountpoint, err)
		}
	}
	return nil
}
