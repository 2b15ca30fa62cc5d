package containers

import (
	"encoding/csv"
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/docker/go-units"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// mountOptions are the parts of a --mount.
type mountOptions struct {
	kind, source, target, size string
	readOnly                   bool
}

func parseMountOptions(text string) (mountOptions, error) {
	out := mountOptions{kind: "volume"}
	fields, err := csv.NewReader(strings.NewReader(text)).Read()
	if err != nil {
		return out, err
	}
	for _, field := range fields {
		key, value, given := strings.Cut(field, "=")
		switch key {
		case "type":
			out.kind = value
		case "source", "src":
			out.source = value
		case "target", "destination", "dst":
			out.target = value
		case "tmpfs-size":
			out.size = value
		case "readonly", "ro":
			out.readOnly = !given || value == "true" || value == "1"
		default:
			return out, fmt.Errorf("unknown option %s: want type, source, target, readonly or tmpfs-size", key)
		}
	}
	return out, nil
}

// parseMount reads Docker's --mount, and says the same as a -v or a --tmpfs.
func parseMount(text string) (volume, tmpfs []string, err error) {
	o, err := parseMountOptions(text)
	switch {
	case err != nil:
		return nil, nil, err
	case o.target == "":
		return nil, nil, errors.New("target is missing")
	case o.kind == "tmpfs" && o.source == "" && !o.readOnly:
		return nil, []string{o.target + ":size=" + o.size}, nil
	case (o.kind == "bind" || o.kind == "volume") && o.source != "":
		if o.readOnly {
			o.target += ":ro"
		}
		return []string{o.source + ":" + o.target}, nil, nil
	case o.kind == "volume" && !o.readOnly:
		return []string{o.target}, nil, nil
	}
	return nil, nil, errors.New("want type=bind or type=volume with source and target, or type=tmpfs with target alone")
}

// parseTmpfs reads Docker's --tmpfs: PATH[:size=SIZE].
func parseTmpfs(text string) (volume corev1.VolumeSource, mount corev1.VolumeMount, err error) {
	target, options, _ := strings.Cut(text, ":")
	mount.MountPath = path.Clean(target)
	if !path.IsAbs(target) || mount.MountPath == "/" {
		return volume, mount, fmt.Errorf("--tmpfs %s: the path has to be absolute and not /", text)
	}
	size := ""
	for _, option := range strings.Split(options, ",") {
		key, value, _ := strings.Cut(option, "=")
		switch key {
		case "size":
			size = value
		case "", "rw", "nosuid", "nodev", "exec": // so it is
		default:
			return volume, mount, fmt.Errorf("--tmpfs %s: unknown option %s: want size=SIZE", text, option)
		}
	}
	if volume, err = memoryOf(size); err != nil {
		return volume, mount, fmt.Errorf("--tmpfs %s: %w", text, err)
	}
	return volume, mount, nil
}

// memoryOf is a file system in memory; "" is of no size of its own.
func memoryOf(size string) (corev1.VolumeSource, error) {
	source := &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory}
	if size != "" {
		bytes, err := units.RAMInBytes(size)
		if err != nil || bytes <= 0 {
			return corev1.VolumeSource{}, fmt.Errorf("size %s: want a number and b, k, m or g", size)
		}
		source.SizeLimit = resource.NewQuantity(bytes, resource.BinarySI)
	}
	return corev1.VolumeSource{EmptyDir: source}, nil
}
