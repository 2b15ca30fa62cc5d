package containers

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// namedVolumes is where named volumes lie on a host: namespace/name below it.
const namedVolumes = "/var/lib/lighter/named-volumes"

// StorageOptions are the mounts of a container.
type StorageOptions struct {
	Volumes, Mounts, Tmpfs []string
	ShmSize                string
}

func (o StorageOptions) apply(pod *corev1.Pod, c *corev1.Container) error {
	add := func(source corev1.VolumeSource, mount corev1.VolumeMount) {
		mount.Name = fmt.Sprintf("volume-%d", len(pod.Spec.Volumes))
		pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: mount.Name, VolumeSource: source})
		c.VolumeMounts = append(c.VolumeMounts, mount)
	}
	all := slices.Clone(o.Volumes)
	tmpfs := slices.Clone(o.Tmpfs)
	for _, text := range o.Mounts {
		volume, memory, err := parseMount(text)
		if err != nil {
			return fmt.Errorf("--mount %s: %w", text, err)
		}
		all, tmpfs = append(all, volume...), append(tmpfs, memory...)
	}
	for _, text := range all {
		source, mount, name, err := parseVolume(text, pod.Namespace)
		if err != nil {
			return err
		}
		if name != "" {
			stayWith(pod, name)
		}
		add(source, mount)
	}
	for _, text := range tmpfs {
		source, mount, err := parseTmpfs(text)
		if err != nil {
			return err
		}
		add(source, mount)
	}
	if o.ShmSize != "" {
		source, err := memoryOf(o.ShmSize)
		if err != nil {
			return fmt.Errorf("--shm-size %s: %w", o.ShmSize, err)
		}
		add(source, corev1.VolumeMount{MountPath: "/dev/shm"})
	}
	return nil
}

// volumeName is Docker's, as far as it can be part of a label.
var volumeName = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9_.-]{0,61}[a-zA-Z0-9])?$`)

// parseVolume reads Docker's -v: a folder or file of the host, or a volume by
// name, and where it is mounted. A path alone is an empty folder, which goes with
// the container. name is that of a named volume.
func parseVolume(text, namespace string) (volume corev1.VolumeSource, mount corev1.VolumeMount, name string, err error) {
	wrong := func(why string) (corev1.VolumeSource, corev1.VolumeMount, string, error) {
		return volume, mount, "", fmt.Errorf("-v %s: %s: want /HOSTPATH:/PATH[:ro], NAME:/PATH[:ro] or /PATH", text, why)
	}
	parts := strings.Split(text, ":")
	if len(parts) == 3 {
		for _, option := range strings.Split(parts[2], ",") {
			switch option {
			case "ro":
				mount.ReadOnly = true
			case "rw", "z", "Z": // the latter are for SELinux, which labels nothing here
			default:
				return wrong("unknown option " + option)
			}
		}
	}
	source, target := parts[0], parts[min(1, len(parts)-1)]
	mount.MountPath = path.Clean(target)
	switch {
	case len(parts) > 3:
		return wrong("it has too many parts")
	case !path.IsAbs(target) || mount.MountPath == "/":
		return wrong("the path in the container has to be absolute and not /")
	case len(parts) == 1:
		volume.EmptyDir = &corev1.EmptyDirVolumeSource{}
		return volume, mount, "", nil
	case path.IsAbs(source):
		volume.HostPath = &corev1.HostPathVolumeSource{Path: path.Clean(source)}
		return volume, mount, "", nil
	case strings.ContainsRune(source, '/') || !volumeName.MatchString(source):
		return wrong("the path on the host has to be absolute, as the command may run elsewhere")
	}
	volume.HostPath = &corev1.HostPathVolumeSource{Path: path.Join(namedVolumes, namespace, source)}
	return volume, mount, source, nil
}
