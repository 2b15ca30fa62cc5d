package runtime

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/continuity/fs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	corev1 "k8s.io/api/core/v1"
)

// withMounts adds, from low to high: cgroups, the pod's /dev/shm, the image's
// volumes, the termination message, the pod's volumes. A mount takes the place
// of an earlier one at the same path.
func (e *Engine) withMounts(spec *ContainerSpec) oci.SpecOpts {
	return func(_ context.Context, _ oci.Client, _ *containers.Container, s *oci.Spec) error {
		add := []specs.Mount{{
			Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup",
			Options: []string{"nosuid", "noexec", "nodev", "relatime", "ro"},
		}}
		shm, err := e.shmMount(spec)
		if err != nil {
			return err
		}
		add = append(add, shm)
		volumes, err := e.imageVolumes(spec)
		if err != nil {
			return err
		}
		add = append(add, volumes...)
		if message, err := e.terminationMount(spec); err != nil {
			return err
		} else if message != nil {
			add = append(add, *message)
		}
		for _, m := range spec.Mounts {
			mounted, err := podMount(m, s)
			if err != nil {
				return err
			}
			add = append(add, mounted)
		}
		s.Mounts = mergeMounts(s.Mounts, add)
		return nil
	}
}

// mergeMounts keeps the last mount of each path, parents before children.
func mergeMounts(base, add []specs.Mount) []specs.Mount {
	var out []specs.Mount
	for _, m := range slices.Concat(base, add) {
		m.Destination = filepath.Clean(m.Destination)
		out = slices.DeleteFunc(out, func(old specs.Mount) bool { return old.Destination == m.Destination })
		out = append(out, m)
	}
	slices.SortStableFunc(out, func(a, b specs.Mount) int {
		return strings.Count(a.Destination, "/") - strings.Count(b.Destination, "/")
	})
	return out
}

// podMount translates one volume mount. A propagation that reaches out of the
// container needs the container's root to propagate too.
func podMount(m Mount, s *specs.Spec) (specs.Mount, error) {
	if _, err := os.Stat(m.HostPath); err != nil {
		return specs.Mount{}, fmt.Errorf("mount at %s: %w", m.ContainerPath, err)
	}
	options := []string{"rbind"}
	switch m.Propagation {
	case corev1.MountPropagationBidirectional:
		options = append(options, "rshared")
		s.Linux.RootfsPropagation = "rshared"
	case corev1.MountPropagationHostToContainer:
		options = append(options, "rslave")
		if s.Linux.RootfsPropagation == "" {
			s.Linux.RootfsPropagation = "rslave"
		}
	default:
		options = append(options, "rprivate")
	}
	if m.ReadOnly {
		options = append(options, "ro")
	} else {
		options = append(options, "rw")
	}
	return specs.Mount{Destination: m.ContainerPath, Type: "bind", Source: m.HostPath, Options: options}, nil
}

// shmMount is the pod's shared memory, or the host's if the pod shares its IPC.
func (e *Engine) shmMount(spec *ContainerSpec) (specs.Mount, error) {
	source := "/dev/shm"
	if spec.Namespaces.IPC != "" {
		dir, err := e.podRunDir(spec.PodUID)
		if err != nil {
			return specs.Mount{}, err
		}
		source = filepath.Join(dir, "shm")
	}
	return specs.Mount{
		Destination: "/dev/shm", Type: "bind", Source: source,
		Options: []string{"rbind", "rprivate", "rw", "nosuid", "noexec", "nodev"},
	}, nil
}

// terminationMount gives the container a file to leave its last words in.
func (e *Engine) terminationMount(spec *ContainerSpec) (*specs.Mount, error) {
	path := spec.Container.TerminationMessagePath
	if path == "" {
		return nil, nil
	}
	file := e.terminationFile(spec.ID)
	if err := os.WriteFile(file, nil, 0o666); err != nil {
		return nil, err
	}
	// Whoever the container runs as, whatever our umask is.
	if err := os.Chmod(file, 0o666); err != nil {
		return nil, err
	}
	return &specs.Mount{
		Destination: filepath.Join("/", path), Type: "bind", Source: file, Options: []string{"rbind", "rprivate", "rw"},
	}, nil
}

// imageVolumes makes an anonymous volume, filled from the image, for each VOLUME
// of the image over which the pod mounts nothing. It lives as long as the container.
func (e *Engine) imageVolumes(spec *ContainerSpec) ([]specs.Mount, error) {
	var out []specs.Mount
	paths := make([]string, 0, len(spec.Image.Volumes))
	for path := range spec.Image.Volumes {
		paths = append(paths, filepath.Join("/", path))
	}
	slices.Sort(paths)
	for i, path := range paths {
		if path == "/" || slices.ContainsFunc(spec.Mounts, func(m Mount) bool { return filepath.Clean(m.ContainerPath) == path }) {
			continue
		}
		dir := filepath.Join(e.stateDir(spec.ID), "volumes", strconv.Itoa(i))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
		if err := fillVolume(dir, e.rootfs(spec.ID), path); err != nil {
			return nil, fmt.Errorf("volume %s of the image: %w", path, err)
		}
		out = append(out, specs.Mount{
			Destination: path, Type: "bind", Source: dir, Options: []string{"rbind", "rprivate", "rw"},
		})
	}
	return out, nil
}

func fillVolume(dir, rootfs, path string) error {
	source, err := fs.RootPath(rootfs, path) // follows links within the rootfs only
	if err != nil {
		return err
	}
	info, err := os.Stat(source)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil || !info.IsDir() {
		return err
	}
	if err := fs.CopyDir(dir, source); err != nil {
		return err
	}
	if owner, ok := info.Sys().(*syscall.Stat_t); ok {
		if err := os.Chown(dir, int(owner.Uid), int(owner.Gid)); err != nil {
			return err
		}
	}
	return os.Chmod(dir, info.Mode())
}
