package btrfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The calls of linux/btrfs.h, as asm-generic/ioctl.h numbers them: a direction, the
// argument's size, btrfs' magic, the call's own number.
const (
	ioctlMagic = 0x94
	ioctlWrite = 1 << 30
	ioctlRead  = 2 << 30

	subvolCreate   = ioctlWrite | argsSize<<16 | ioctlMagic<<8 | 14 // BTRFS_IOC_SUBVOL_CREATE
	snapDestroy    = ioctlWrite | argsSize<<16 | ioctlMagic<<8 | 15 // BTRFS_IOC_SNAP_DESTROY
	snapCreateV2   = ioctlWrite | argsSize<<16 | ioctlMagic<<8 | 23 // BTRFS_IOC_SNAP_CREATE_V2
	subvolGetFlags = ioctlRead | 8<<16 | ioctlMagic<<8 | 25         // BTRFS_IOC_SUBVOL_GETFLAGS
	subvolSetFlags = ioctlWrite | 8<<16 | ioctlMagic<<8 | 26        // BTRFS_IOC_SUBVOL_SETFLAGS

	subvolReadOnly = 1 << 1 // BTRFS_SUBVOL_RDONLY

	// firstFree is the inode of every subvolume's root (BTRFS_FIRST_FREE_OBJECTID).
	firstFree = 256
	argsSize  = 4096
)

// args are struct btrfs_ioctl_vol_args.
type args struct {
	fd   int64
	name [argsSize - 8]byte
}

// argsV2 are struct btrfs_ioctl_vol_args_v2.
type argsV2 struct {
	fd      int64
	transid uint64
	flags   uint64
	unused  [4]uint64
	name    [argsSize - 56]byte
}

// createSubvolume makes an empty subvolume. A file of that name must not be there.
func createSubvolume(path string) error {
	return inParent("create subvolume", path, func(dir *os.File, name string) error {
		var a args
		copy(a.name[:len(a.name)-1], name)
		return ioctl(dir, subvolCreate, unsafe.Pointer(&a))
	})
}

// snapshotSubvolume makes a subvolume that shares the content of another.
func snapshotSubvolume(path, source string) error {
	from, err := os.Open(source)
	if err != nil {
		return err
	}
	defer from.Close()
	return inParent("snapshot subvolume", path, func(dir *os.File, name string) error {
		a := argsV2{fd: int64(from.Fd())}
		copy(a.name[:len(a.name)-1], name)
		return ioctl(dir, snapCreateV2, unsafe.Pointer(&a))
	})
}

// setReadOnly forbids or allows writing into a subvolume, by whatever mount.
func setReadOnly(path string, readOnly bool) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	var flags uint64
	if err := ioctl(dir, subvolGetFlags, unsafe.Pointer(&flags)); err != nil {
		return fmt.Errorf("read the flags of subvolume %s: %w", path, err)
	}
	want := flags &^ subvolReadOnly
	if readOnly {
		want |= subvolReadOnly
	}
	if want == flags {
		return nil
	}
	if err := ioctl(dir, subvolSetFlags, unsafe.Pointer(&want)); err != nil {
		return fmt.Errorf("set the flags of subvolume %s: %w", path, err)
	}
	return nil
}

// destroySubvolume removes a subvolume with all in it, in constant time. It does
// nothing where there is none.
func destroySubvolume(path string) error {
	err := destroyEmpty(path)
	if !errors.Is(err, unix.ENOTEMPTY) {
		return err
	}
	// A process in a container may make subvolumes: the kernel lets whoever may
	// make a folder. They have to go first.
	if err := setReadOnly(path, false); err != nil {
		return err
	}
	nested, err := nestedSubvolumes(path)
	if err != nil {
		return err
	}
	for i := len(nested) - 1; i >= 0; i-- {
		if err := setReadOnly(filepath.Dir(nested[i]), false); err != nil && !errors.Is(err, unix.EINVAL) {
			return err // EINVAL: the parent is a plain folder
		}
		if err := destroyEmpty(nested[i]); err != nil {
			return err
		}
	}
	return destroyEmpty(path)
}

// destroyEmpty removes a subvolume that has no other below it.
func destroyEmpty(path string) error {
	err := inParent("remove subvolume", path, func(dir *os.File, name string) error {
		var a args
		copy(a.name[:len(a.name)-1], name)
		return ioctl(dir, snapDestroy, unsafe.Pointer(&a))
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// nestedSubvolumes are the subvolumes below one, each after those it is in.
func nestedSubvolumes(root string) ([]string, error) {
	var found []string
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.IsDir() || path == root {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Ino == firstFree {
			found = append(found, path)
		}
		return nil
	})
	return found, err
}

// inParent opens the folder that path is in and hands on path's last element.
func inParent(what, path string, do func(dir *os.File, name string) error) error {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := do(dir, filepath.Base(path)); err != nil {
		return fmt.Errorf("%s %s: %w", what, path, err)
	}
	return nil
}

func ioctl(file *os.File, call uintptr, arg unsafe.Pointer) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, file.Fd(), call, uintptr(arg))
	if errno != 0 {
		return errno
	}
	return nil
}
