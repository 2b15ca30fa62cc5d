package local

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// holdRunRoot takes a lock on /run itself: making and removing RunRoot are the
// two things that clusters have in common. It leaves no lock file.
func holdRunRoot() (release func(), err error) {
	run, err := os.Open("/run")
	if err != nil {
		return nil, err
	}
	if err := flock(run); err != nil {
		run.Close()
		return nil, fmt.Errorf("lock /run: %w", err)
	}
	return func() { run.Close() }, nil
}

// ensurePinDir makes RunRoot a private mount, as pins of mount namespaces need
// (the kernel refuses them on a shared one), and in it the cluster's folder.
func (c *Cluster) ensurePinDir() error {
	release, err := holdRunRoot()
	if err != nil {
		return err
	}
	defer release()
	if err := os.MkdirAll(RunRoot, 0o755); err != nil {
		return err
	}
	if !isMountPoint(RunRoot) {
		if err := unix.Mount(RunRoot, RunRoot, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mount %s: %w", RunRoot, err)
		}
	}
	if err := unix.Mount("", RunRoot, "", unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make %s private: %w", RunRoot, err)
	}
	if err := os.MkdirAll(c.pinDir(), 0o700); err != nil {
		return err
	}
	return c.index()
}

// index lets a cluster be found by its name.
func (c *Cluster) index() error {
	link := indexLink(c.Name)
	if target, err := os.Readlink(link); err == nil && target == c.Dir {
		return nil
	}
	if err := os.Remove(link); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.Symlink(c.Dir, link)
}

// removePinDir undoes ensurePinDir; RunRoot goes with the last cluster.
func (c *Cluster) removePinDir() error {
	release, err := holdRunRoot()
	if err != nil {
		return err
	}
	defer release()
	for _, path := range []string{c.pinDir(), indexLink(c.Name)} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	left, err := os.ReadDir(RunRoot)
	if errors.Is(err, fs.ErrNotExist) || len(left) > 0 {
		return nil
	} else if err != nil {
		return err
	}
	if isMountPoint(RunRoot) {
		if err := unix.Unmount(RunRoot, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount %s: %w", RunRoot, err)
		}
	}
	return os.Remove(RunRoot)
}

// isMountPoint compares mount IDs (statx(2)), which differ also for a bind
// mount of a folder on itself.
func isMountPoint(path string) bool {
	var own, parent unix.Statx_t
	if unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_MNT_ID, &own) != nil {
		return false
	}
	if unix.Statx(unix.AT_FDCWD, path+"/..", 0, unix.STATX_MNT_ID, &parent) != nil {
		return false
	}
	return own.Mnt_id != parent.Mnt_id
}
