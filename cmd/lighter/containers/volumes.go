package containers

import (
	"fmt"
	"path"
	"regexp"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// namedVolumes is where named volumes lie on a host: namespace/name below it.
const namedVolumes = "/var/lib/lighter/named-volumes"

var volumeName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]*$`)

// parseVolume reads Docker's -v: a folder or file of the host, or a volume by
// name, and where it is mounted.
func parseVolume(text, namespace string, onOneHost bool) (source string, mount corev1.VolumeMount, err error) {
	wrong := func(why string) (string, corev1.VolumeMount, error) {
		return "", corev1.VolumeMount{}, fmt.Errorf("-v %s: %s: want /HOSTPATH:/PATH[:ro] or NAME:/PATH[:ro]", text, why)
	}
	parts := strings.Split(text, ":")
	if len(parts) < 2 || len(parts) > 3 {
		return wrong("it names no source and target")
	}
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
	source, mount.MountPath = parts[0], path.Clean(parts[1])
	switch {
	case !path.IsAbs(parts[1]) || mount.MountPath == "/":
		return wrong("the path in the container has to be absolute and not /")
	case path.IsAbs(source):
		return path.Clean(source), mount, nil
	case strings.ContainsRune(source, '/') || !volumeName.MatchString(source):
		return wrong("the path on the host has to be absolute, as the command may run elsewhere")
	case !onOneHost:
		return "", corev1.VolumeMount{}, fmt.Errorf("-v %s: a named volume lies on one host: say which by --node", text)
	}
	return path.Join(namedVolumes, namespace, source), mount, nil
}
