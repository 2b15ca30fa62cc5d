// Package volume makes a pod's volumes appear as paths on the host.
//
// All of a pod's volumes live under <Root>/<pod UID>/:
//
//	volumes/<name>/          emptyDir, and the writable copies of configMaps, …
//	memory/                  one tmpfs for all secrets and tokens of the pod
//	memory/<name>/           secret, projected
//	subpaths/<container>/<n> bind mounts of subPaths, resolved safely
//
// Setup is level-triggered and idempotent: it makes what is missing, rewrites
// what changed (atomically, so that a reader sees the old or the new content),
// and says when it wants to be called again because a token grows old.
// Teardown undoes it, however far it came.
package volume

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"lighter.dev/lighter/agent/env"
)

// Objects reads what configMap, secret and projected volumes show.
// *objects.Cache implements it.
type Objects interface {
	ConfigMap(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error)
	Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error)
}

// TokenFunc asks the API for a token of a service account.
type TokenFunc func(ctx context.Context, namespace, account string, req *authenticationv1.TokenRequest) (*authenticationv1.TokenRequest, error)

// Config is what a Manager needs.
type Config struct {
	// Root is the folder of all pods' volumes, on a disk.
	Root    string
	Objects Objects
	Tokens  TokenFunc
	// NodeName is the value of spec.nodeName in downward API files.
	NodeName string
	// Allocatable stands in for missing limits in downward API files.
	Allocatable func() corev1.ResourceList
	Log         *slog.Logger
}

// Manager sets volumes up. It keeps no state but a cache of tokens; the truth
// is on the disk.
type Manager struct {
	cfg    Config
	tokens tokenCache
}

// New makes a Manager and its root folder.
func New(cfg Config) (*Manager, error) {
	if err := os.MkdirAll(cfg.Root, 0o750); err != nil {
		return nil, fmt.Errorf("volume root: %w", err)
	}
	if cfg.Allocatable == nil {
		cfg.Allocatable = func() corev1.ResourceList { return nil }
	}
	return &Manager{cfg: cfg, tokens: tokenCache{request: cfg.Tokens, held: map[tokenKey]heldToken{}}}, nil
}

// PodDir is where everything of one pod lives.
func (m *Manager) PodDir(uid types.UID) string { return filepath.Join(m.cfg.Root, string(uid)) }

// Error says which volume failed. Its text is that of a FailedMount event.
type Error struct {
	Volume string
	Err    error
}

// Error implements error.
func (e *Error) Error() string {
	return fmt.Sprintf("MountVolume.SetUp failed for volume %q : %v", e.Volume, e.Err)
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// Setup makes all volumes of the pod. It goes on after a failure and joins
// the errors (each an *Error). next is when it has to be called again at the
// latest; zero means never.
func (m *Manager) Setup(ctx context.Context, pod *corev1.Pod) (next time.Time, err error) {
	if err := os.MkdirAll(filepath.Join(m.PodDir(pod.UID), "volumes"), 0o750); err != nil {
		return time.Time{}, fmt.Errorf("make pod folder: %w", err)
	}
	var errs []error
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		at, err := m.setup(ctx, pod, v)
		if err != nil {
			errs = append(errs, &Error{v.Name, err})
		}
		if !at.IsZero() && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	return next, errors.Join(errs...)
}

// setup makes one volume, by kind.
func (m *Manager) setup(ctx context.Context, pod *corev1.Pod, v *corev1.Volume) (time.Time, error) {
	var none time.Time
	group := fsGroup(pod)
	switch {
	case v.EmptyDir != nil:
		return none, m.emptyDir(pod, v, group)
	case v.HostPath != nil:
		return none, checkHostPath(v.HostPath)
	case v.ConfigMap != nil:
		return none, m.configMap(ctx, pod, v, group)
	case v.Secret != nil:
		return none, m.secret(ctx, pod, v, group)
	case v.DownwardAPI != nil:
		return none, m.downwardAPI(pod, v, group)
	case v.Projected != nil:
		return m.projected(ctx, pod, v, group)
	case v.PersistentVolumeClaim != nil:
		return none, errors.New("unsupported: persistentVolumeClaim; use emptyDir or hostPath")
	case v.Image != nil:
		return none, errors.New("unsupported: image volumes")
	case v.VolumeSource == (corev1.VolumeSource{}):
		// The API defaults a volume without a source to emptyDir.
		return none, m.emptyDir(pod, v, group)
	}
	return none, errors.New("unsupported kind of volume: use emptyDir, hostPath, configMap, secret, downwardAPI or projected")
}

// Path is where a volume of the pod is on the host after Setup.
func (m *Manager) Path(pod *corev1.Pod, v *corev1.Volume) string {
	switch {
	case v.HostPath != nil:
		return v.HostPath.Path
	case inMemory(v):
		return filepath.Join(m.PodDir(pod.UID), "memory", v.Name)
	}
	return filepath.Join(m.PodDir(pod.UID), "volumes", v.Name)
}

// inMemory tells the volumes whose content must not reach a disk.
func inMemory(v *corev1.Volume) bool { return v.Secret != nil || v.Projected != nil }

// field reads a downward API file.
func (m *Manager) field(pod *corev1.Pod, f *corev1.DownwardAPIVolumeFile) ([]byte, error) {
	var value string
	var err error
	switch {
	case f.FieldRef != nil:
		value, err = env.Field(pod, f.FieldRef.FieldPath, m.cfg.NodeName, nil, nil)
	case f.ResourceFieldRef != nil:
		value, err = env.Resource(pod, f.ResourceFieldRef, "", m.cfg.Allocatable())
	}
	return []byte(value), err
}

// fsGroup is the group that owns the pod's volumes, or nil.
func fsGroup(pod *corev1.Pod) *int64 {
	if pod.Spec.SecurityContext == nil {
		return nil
	}
	return pod.Spec.SecurityContext.FSGroup
}
