package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// file is one file of a volume whose content comes from the API.
type file struct {
	data []byte
	mode fs.FileMode
	// uid owns the file; -1 leaves it to root.
	uid int
}

// payload maps relative paths to files.
type payload map[string]file

// defaultFileMode is Kubernetes' default for all such volumes.
const defaultFileMode fs.FileMode = 0o644

func modeOr(mode *int32, fallback fs.FileMode) fs.FileMode {
	if mode == nil {
		return fallback
	}
	return fs.FileMode(*mode).Perm()
}

func isTrue(b *bool) bool { return b != nil && *b }

func (m *Manager) configMap(ctx context.Context, pod *corev1.Pod, v *corev1.Volume, group *int64) error {
	files := payload{}
	src := v.ConfigMap
	if err := m.addConfigMap(ctx, pod, src.Name, src.Items, src.Optional, modeOr(src.DefaultMode, defaultFileMode), files); err != nil {
		return err
	}
	return m.write(pod, v, files, group)
}

func (m *Manager) secret(ctx context.Context, pod *corev1.Pod, v *corev1.Volume, group *int64) error {
	files := payload{}
	src := v.Secret
	if err := m.addSecret(ctx, pod, src.SecretName, src.Items, src.Optional, modeOr(src.DefaultMode, defaultFileMode), files); err != nil {
		return err
	}
	return m.write(pod, v, files, group)
}

func (m *Manager) downwardAPI(pod *corev1.Pod, v *corev1.Volume, group *int64) error {
	files := payload{}
	if err := m.addFields(pod, v.DownwardAPI.Items, modeOr(v.DownwardAPI.DefaultMode, defaultFileMode), files); err != nil {
		return err
	}
	return m.write(pod, v, files, group)
}

// projected merges several sources into one folder.
func (m *Manager) projected(ctx context.Context, pod *corev1.Pod, v *corev1.Volume, group *int64) (next time.Time, err error) {
	files := payload{}
	mode := modeOr(v.Projected.DefaultMode, defaultFileMode)
	var errs []error
	for _, s := range v.Projected.Sources {
		switch {
		case s.ConfigMap != nil:
			errs = append(errs, m.addConfigMap(ctx, pod, s.ConfigMap.Name, s.ConfigMap.Items, s.ConfigMap.Optional, mode, files))
		case s.Secret != nil:
			errs = append(errs, m.addSecret(ctx, pod, s.Secret.Name, s.Secret.Items, s.Secret.Optional, mode, files))
		case s.DownwardAPI != nil:
			errs = append(errs, m.addFields(pod, s.DownwardAPI.Items, mode, files))
		case s.ServiceAccountToken != nil:
			at, err := m.addToken(ctx, pod, s.ServiceAccountToken, mode, files)
			errs = append(errs, err)
			if !at.IsZero() && (next.IsZero() || at.Before(next)) {
				next = at
			}
		default:
			errs = append(errs, errors.New("unsupported: this kind of projected source"))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return next, err
	}
	return next, m.write(pod, v, files, group)
}

func (m *Manager) addConfigMap(ctx context.Context, pod *corev1.Pod, name string, items []corev1.KeyToPath, optional *bool, mode fs.FileMode, out payload) error {
	cm, err := m.cfg.Objects.ConfigMap(ctx, pod.Namespace, name)
	if err != nil {
		if isTrue(optional) && apierrors.IsNotFound(err) {
			return nil
		}
		return err
	}
	data := make(map[string][]byte, len(cm.Data)+len(cm.BinaryData))
	for k, v := range cm.Data {
		data[k] = []byte(v)
	}
	for k, v := range cm.BinaryData {
		data[k] = v
	}
	return addItems(fmt.Sprintf("configmap %q", name), data, items, optional, mode, out)
}

func (m *Manager) addSecret(ctx context.Context, pod *corev1.Pod, name string, items []corev1.KeyToPath, optional *bool, mode fs.FileMode, out payload) error {
	secret, err := m.cfg.Objects.Secret(ctx, pod.Namespace, name)
	if err != nil {
		if isTrue(optional) && apierrors.IsNotFound(err) {
			return nil
		}
		return err
	}
	return addItems(fmt.Sprintf("secret %q", name), secret.Data, items, optional, mode, out)
}

// addItems picks the wanted keys, or all if none are named.
func addItems(what string, data map[string][]byte, items []corev1.KeyToPath, optional *bool, mode fs.FileMode, out payload) error {
	if len(items) == 0 {
		for k, v := range data {
			out[k] = file{v, mode, -1}
		}
		return nil
	}
	for _, item := range items {
		value, ok := data[item.Key]
		if !ok {
			if isTrue(optional) {
				continue
			}
			return fmt.Errorf("%s references non-existent key: %s", what, item.Key)
		}
		out[item.Path] = file{value, modeOr(item.Mode, mode), -1}
	}
	return nil
}

func (m *Manager) addFields(pod *corev1.Pod, items []corev1.DownwardAPIVolumeFile, mode fs.FileMode, out payload) error {
	for i := range items {
		value, err := m.field(pod, &items[i])
		if err != nil {
			return fmt.Errorf("downward API file %s: %w", items[i].Path, err)
		}
		out[items[i].Path] = file{value, modeOr(items[i].Mode, mode), -1}
	}
	return nil
}

// write puts a payload in place. Secrets and tokens go to the pod's tmpfs.
func (m *Manager) write(pod *corev1.Pod, v *corev1.Volume, files payload, group *int64) error {
	if inMemory(v) {
		if err := m.memory(pod); err != nil {
			return err
		}
	}
	path := m.Path(pod, v)
	if _, err := makeDir(path, 0o755); err != nil {
		return err
	}
	return writeAtomically(path, files, group)
}

// memory mounts the one tmpfs that all secret content of the pod shares.
func (m *Manager) memory(pod *corev1.Pod) error {
	path := filepath.Join(m.PodDir(pod.UID), "memory")
	if err := os.MkdirAll(path, 0o755); err != nil {
		return err
	}
	mounted, err := isMountPoint(path)
	if err != nil || mounted {
		return err
	}
	if err := unix.Mount("tmpfs", path, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0755"); err != nil {
		return fmt.Errorf("mount tmpfs: %w", err)
	}
	return nil
}
