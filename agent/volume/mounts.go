package volume

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"lighter.dev/lighter/agent/env"
	"lighter.dev/lighter/agent/runtime"
)

// Mounts lists the bind mounts of a container. vars expand subPathExpr.
func (m *Manager) Mounts(pod *corev1.Pod, c *corev1.Container, vars []corev1.EnvVar) ([]runtime.Mount, error) {
	volumes := map[string]*corev1.Volume{}
	for i := range pod.Spec.Volumes {
		volumes[pod.Spec.Volumes[i].Name] = &pod.Spec.Volumes[i]
	}
	var out []runtime.Mount
	for i := range c.VolumeMounts {
		vm := &c.VolumeMounts[i]
		v := volumes[vm.Name]
		if v == nil {
			return nil, fmt.Errorf("volume mount %q: the pod has no volume of this name", vm.Name)
		}
		path, err := m.source(pod, c, v, vm, i, vars)
		if err != nil {
			return nil, err
		}
		mount := runtime.Mount{HostPath: path, ContainerPath: vm.MountPath, ReadOnly: vm.ReadOnly || readOnly(v)}
		if !filepath.IsAbs(mount.ContainerPath) {
			mount.ContainerPath = filepath.Join("/", mount.ContainerPath)
		}
		if vm.MountPropagation != nil {
			mount.Propagation = *vm.MountPropagation
		}
		out = append(out, mount)
	}
	return out, nil
}

// readOnly: what the API wrote, no container may change.
func readOnly(v *corev1.Volume) bool {
	return v.ConfigMap != nil || v.Secret != nil || v.Projected != nil || v.DownwardAPI != nil
}

// source is the host path behind a mount, with its subPath resolved.
func (m *Manager) source(pod *corev1.Pod, c *corev1.Container, v *corev1.Volume, vm *corev1.VolumeMount, index int, vars []corev1.EnvVar) (string, error) {
	root := m.Path(pod, v)
	sub := vm.SubPath
	if vm.SubPathExpr != "" {
		var err error
		if sub, err = env.ExpandPath(vm.SubPathExpr, vars); err != nil {
			return "", fmt.Errorf("subPathExpr of volume mount %q: %w", vm.Name, err)
		}
	}
	if sub == "" {
		return root, nil
	}
	target := filepath.Join(m.PodDir(pod.UID), "subpaths", c.Name, strconv.Itoa(index))
	if err := bindSubPath(root, sub, target); err != nil {
		return "", fmt.Errorf("failed to prepare subPath for volumeMount %q of container %q: %w", vm.Name, c.Name, err)
	}
	return target, nil
}

// bindSubPath pins root/sub to target by a bind mount of an open descriptor.
// A container of the pod can write to the volume and so could swap a part of
// the path for a symbolic link at any time; openat2 with RESOLVE_BENEATH
// refuses to leave the volume, and the descriptor cannot be redirected later.
func bindSubPath(root, sub, target string) error {
	if filepath.IsAbs(sub) || strings.Contains("/"+sub+"/", "/../") {
		return fmt.Errorf("subPath %q must be relative and must not contain '..'", sub)
	}
	fd, err := openBeneath(root, sub)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if err := unmountAll(target); err != nil {
		return err
	}
	if err := mountPointFor(target, st.Mode&unix.S_IFMT == unix.S_IFDIR); err != nil {
		return err
	}
	if err := unix.Mount("/proc/self/fd/"+strconv.Itoa(fd), target, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("bind %s: %w", sub, err)
	}
	return nil
}

// mountPointFor makes an empty folder or file to mount on.
func mountPointFor(target string, dir bool) error {
	if err := os.MkdirAll(filepath.Dir(target), 0o750); err != nil {
		return err
	}
	if err := os.Remove(target); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if dir {
		return os.Mkdir(target, 0o750)
	}
	return os.WriteFile(target, nil, 0o640)
}

// openBeneath opens sub inside root and makes the folders that are missing.
func openBeneath(root, sub string) (int, error) {
	how := &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS,
	}
	rootFD, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open volume: %w", err)
	}
	defer unix.Close(rootFD)
	clean := filepath.Clean(sub)
	fd, err := unix.Openat2(rootFD, clean, how)
	if err == nil || !errors.Is(err, unix.ENOENT) {
		return fd, escape(err, sub)
	}
	var rootStat unix.Stat_t
	if err := unix.Fstat(rootFD, &rootStat); err != nil {
		return -1, err
	}
	path := ""
	parent, err := unix.Dup(rootFD)
	if err != nil {
		return -1, err
	}
	for _, part := range strings.Split(clean, "/") {
		path = filepath.Join(path, part)
		next, err := unix.Openat2(rootFD, path, how)
		if errors.Is(err, unix.ENOENT) {
			next, err = makeBeneath(rootFD, parent, path, part, &rootStat, how)
		}
		unix.Close(parent)
		if err != nil {
			return -1, escape(err, sub)
		}
		parent = next
	}
	return parent, nil
}

// makeBeneath makes one missing folder with the owner and mode of the volume.
func makeBeneath(rootFD, parent int, path, name string, like *unix.Stat_t, how *unix.OpenHow) (int, error) {
	if err := unix.Mkdirat(parent, name, 0o755); err != nil && !errors.Is(err, unix.EEXIST) {
		return -1, err
	}
	fd, err := unix.Openat2(rootFD, path, how)
	if err != nil {
		return -1, err
	}
	self := "/proc/self/fd/" + strconv.Itoa(fd)
	if err := errors.Join(os.Chown(self, int(like.Uid), int(like.Gid)), unix.Chmod(self, like.Mode&0o7777)); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// escape words the kernel's refusal for people.
func escape(err error, sub string) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EXDEV), errors.Is(err, unix.ELOOP):
		return fmt.Errorf("subPath %q leads out of the volume: %w", sub, err)
	}
	return fmt.Errorf("subPath %q: %w", sub, err)
}
