package volume

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
)

// emptyDir makes a folder that lives as long as the pod, on the disk or, with
// medium Memory, in a tmpfs of the wanted size.
func (m *Manager) emptyDir(pod *corev1.Pod, v *corev1.Volume, group *int64) error {
	path := m.Path(pod, v)
	medium := corev1.StorageMediumDefault
	options := "mode=0777"
	if v.EmptyDir != nil {
		medium = v.EmptyDir.Medium
		if limit := v.EmptyDir.SizeLimit; limit != nil && limit.Value() > 0 {
			options += fmt.Sprintf(",size=%d", limit.Value())
		}
	}
	fresh, err := makeDir(path, 0o777)
	if err != nil {
		return err
	}
	switch medium {
	case corev1.StorageMediumDefault:
	case corev1.StorageMediumMemory:
		mounted, err := isMountPoint(path)
		if err != nil {
			return err
		}
		if !mounted {
			fresh = true
			if err := unix.Mount("tmpfs", path, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
				return fmt.Errorf("mount tmpfs: %w", err)
			}
		}
	default:
		return fmt.Errorf("unsupported: emptyDir medium %q", medium)
	}
	if !fresh || group == nil {
		return nil
	}
	return own(path, int(*group))
}

// own gives a folder to the pod's fsGroup, and with it (setgid) all that is
// made in it later.
func own(path string, group int) error {
	if err := os.Chown(path, -1, group); err != nil {
		return fmt.Errorf("fsGroup: %w", err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	return os.Chmod(path, info.Mode().Perm()|fs.ModeSetgid|0o070)
}

// makeDir makes a folder with exactly this mode, whatever the umask, and says
// whether it was missing.
func makeDir(path string, mode fs.FileMode) (fresh bool, err error) {
	err = os.Mkdir(path, mode)
	switch {
	case err == nil:
		return true, os.Chmod(path, mode)
	case errors.Is(err, fs.ErrExist):
		return false, nil
	}
	return false, err
}

// checkHostPath verifies or makes what hostPath.type asks for.
func checkHostPath(src *corev1.HostPathVolumeSource) error {
	kind := corev1.HostPathUnset
	if src.Type != nil {
		kind = *src.Type
	}
	if kind == corev1.HostPathUnset {
		// As runtimes do for a missing bind source: make a folder.
		if _, err := os.Stat(src.Path); errors.Is(err, fs.ErrNotExist) {
			return os.MkdirAll(src.Path, 0o755)
		}
		return nil
	}
	switch kind {
	case corev1.HostPathDirectoryOrCreate:
		if err := os.MkdirAll(src.Path, 0o755); err != nil {
			return fmt.Errorf("hostPath type check failed: %s is not a directory: %w", src.Path, err)
		}
	case corev1.HostPathFileOrCreate:
		f, err := os.OpenFile(src.Path, os.O_CREATE, 0o644)
		if err != nil {
			return fmt.Errorf("hostPath type check failed: %s is not a file: %w", src.Path, err)
		}
		return f.Close()
	}
	info, err := os.Stat(src.Path)
	if err != nil {
		return fmt.Errorf("hostPath type check failed: %s: %w", src.Path, err)
	}
	want, ok := hostPathKinds[kind]
	if !ok {
		return fmt.Errorf("%q is not a hostPath type", kind)
	}
	if !want.match(info.Mode()) {
		return fmt.Errorf("hostPath type check failed: %s is not a %s", src.Path, want.name)
	}
	return nil
}

var hostPathKinds = map[corev1.HostPathType]struct {
	name  string
	match func(fs.FileMode) bool
}{
	corev1.HostPathDirectory:         {"directory", fs.FileMode.IsDir},
	corev1.HostPathDirectoryOrCreate: {"directory", fs.FileMode.IsDir},
	corev1.HostPathFile:              {"file", fs.FileMode.IsRegular},
	corev1.HostPathFileOrCreate:      {"file", fs.FileMode.IsRegular},
	corev1.HostPathSocket:            {"socket", func(m fs.FileMode) bool { return m&fs.ModeSocket != 0 }},
	corev1.HostPathCharDev:           {"character device", func(m fs.FileMode) bool { return m&fs.ModeCharDevice != 0 }},
	corev1.HostPathBlockDev: {"block device", func(m fs.FileMode) bool {
		return m&fs.ModeDevice != 0 && m&fs.ModeCharDevice == 0
	}},
}

// isMountPoint compares the mount IDs (statx) of a folder and its parent, which
// also tells bind mounts of the same file system apart.
func isMountPoint(path string) (bool, error) {
	var own unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_BASIC_STATS, &own); err != nil {
		return false, fmt.Errorf("stat %s: %w", path, err)
	}
	if own.Attributes_mask&unix.STATX_ATTR_MOUNT_ROOT != 0 {
		return own.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0, nil
	}
	var parent unix.Stat_t
	if err := unix.Stat(filepath.Dir(path), &parent); err != nil {
		return false, fmt.Errorf("stat %s: %w", filepath.Dir(path), err)
	}
	var self unix.Stat_t
	if err := unix.Lstat(path, &self); err != nil {
		return false, fmt.Errorf("stat %s: %w", path, err)
	}
	return self.Dev != parent.Dev, nil
}
