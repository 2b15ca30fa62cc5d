package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// api is a working stand-in for ConfigMaps, Secrets and tokens.
type api struct {
	maps    map[string]map[string]string
	secrets map[string]map[string][]byte
	tokens  int
	down    bool
}

func (a *api) ConfigMap(_ context.Context, _, name string) (*corev1.ConfigMap, error) {
	if data, ok := a.maps[name]; ok {
		return &corev1.ConfigMap{Data: data}, nil
	}
	return nil, apierrors.NewNotFound(corev1.Resource("configmaps"), name)
}

func (a *api) Secret(_ context.Context, _, name string) (*corev1.Secret, error) {
	if data, ok := a.secrets[name]; ok {
		return &corev1.Secret{Data: data}, nil
	}
	return nil, apierrors.NewNotFound(corev1.Resource("secrets"), name)
}

func (a *api) token(_ context.Context, _, _ string, req *authenticationv1.TokenRequest) (*authenticationv1.TokenRequest, error) {
	if a.down {
		return nil, errors.New("connection refused")
	}
	if req.Spec.BoundObjectRef == nil || req.Spec.BoundObjectRef.UID != "u1" {
		return nil, errors.New("the token is not bound to the pod")
	}
	a.tokens++
	req.Status = authenticationv1.TokenRequestStatus{
		Token: fmt.Sprintf("token-%d", a.tokens), ExpirationTimestamp: metav1.Time{Time: time.Now().Add(time.Duration(*req.Spec.ExpirationSeconds) * time.Second)},
	}
	return req, nil
}

func manager(t *testing.T) (*Manager, *api) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root to mount")
	}
	a := &api{maps: map[string]map[string]string{}, secrets: map[string]map[string][]byte{}}
	m, err := New(Config{Root: filepath.Join(t.TempDir(), "pods"), Objects: a, Tokens: a.token, NodeName: "node-1", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Sweep(context.Background(), func(types.UID) bool { return false }); err != nil {
			t.Error(err)
		}
	})
	return m, a
}

func podWith(volumes ...corev1.Volume) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "default", UID: "u1", Labels: map[string]string{"app": "web"}},
		Spec:       corev1.PodSpec{ServiceAccountName: "default", Volumes: volumes, Containers: []corev1.Container{{Name: "c"}}},
	}
}

func vol(name string, src corev1.VolumeSource) corev1.Volume {
	return corev1.Volume{Name: name, VolumeSource: src}
}

func TestKindsOfVolumes(t *testing.T) {
	m, a := manager(t)
	a.maps["cm"] = map[string]string{"colour": "blue", "other": "x"}
	a.secrets["s"] = map[string][]byte{"password": []byte("hunter2")}
	group, mode := int64(4242), int32(0o400)
	limit := resource.MustParse("1Mi")
	local := func(name string) corev1.LocalObjectReference { return corev1.LocalObjectReference{Name: name} }
	pod := podWith(
		vol("disk", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}),
		vol("ram", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory, SizeLimit: &limit}}),
		vol("cm", corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: local("cm"), Items: []corev1.KeyToPath{{Key: "colour", Path: "deep/colour"}}}}),
		vol("secret", corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "s", DefaultMode: &mode}}),
		vol("down", corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{Items: []corev1.DownwardAPIVolumeFile{
			{Path: "labels", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.labels"}},
		}}}),
		vol("api", corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
			{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token"}},
			{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: local("cm")}},
		}}}),
	)
	pod.Spec.SecurityContext = &corev1.PodSecurityContext{FSGroup: &group}
	next, err := m.Setup(t.Context(), pod)
	if err != nil {
		t.Fatal(err)
	}
	if in := time.Until(next); in < 40*time.Minute || in > 48*time.Minute {
		t.Errorf("the token is renewed in %v, want about 80%% of an hour", in)
	}
	path := func(name string, more ...string) string {
		i := slices.IndexFunc(pod.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == name })
		return filepath.Join(append([]string{m.Path(pod, &pod.Spec.Volumes[i])}, more...)...)
	}
	for file, want := range map[string]string{
		path("cm", "deep", "colour"): "blue", path("secret", "password"): "hunter2", path("down", "labels"): `app="web"`,
		path("api", "token"): "token-1", path("api", "other"): "x",
	} {
		if got := read(t, file); got != want {
			t.Errorf("%s = %q, want %q", file, got, want)
		}
	}
	// Secrets are in memory, readable by the pod's group and nobody else.
	var st syscall.Statfs_t
	if err := syscall.Statfs(path("secret"), &st); err != nil || st.Type != 0x01021994 {
		t.Errorf("secrets are on file system %x (%v), want tmpfs", st.Type, err)
	}
	info, err := os.Stat(path("secret", "password"))
	if err != nil || info.Mode().Perm() != 0o440 || info.Sys().(*syscall.Stat_t).Gid != 4242 {
		t.Errorf("secret file: %v %v", info, err)
	}
	if info, err = os.Stat(path("disk")); err != nil || info.Sys().(*syscall.Stat_t).Gid != 4242 || info.Mode()&fs.ModeSetgid == 0 {
		t.Errorf("emptyDir: %v %v", info, err)
	}
	if err := os.WriteFile(path("ram", "big"), make([]byte, 2<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("the size limit did not hold: %v", err)
	}

	// A restart of the agent must not disturb what is there.
	if err := os.WriteFile(path("disk", "kept"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	again, err := New(m.cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := again.Setup(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	if read(t, path("disk", "kept")) != "x" {
		t.Error("emptyDir lost its content")
	}
	for range 2 { // a repeated teardown is fine
		if err := m.Teardown(t.Context(), pod.UID); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(m.PodDir(pod.UID)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("pod folder: %v", err)
	}
}

func TestErrorsNameTheVolume(t *testing.T) {
	m, _ := manager(t)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	dir := corev1.HostPathDirectory
	yes := true
	pod := podWith(
		vol("cm", corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "nosuch"}}}),
		vol("may", corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "nosuch"}, Optional: &yes}}),
		vol("claim", corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "c"}}),
		vol("host", corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: file, Type: &dir}}),
	)
	_, err := m.Setup(t.Context(), pod)
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{`"cm" : configmaps "nosuch" not found`, `"claim" : unsupported`, `"host" : hostPath type check failed`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q lacks %q", err, want)
		}
	}
	if strings.Contains(err.Error(), `"may"`) {
		t.Errorf("an optional volume failed: %v", err)
	}
}

func TestOldTokenServesWhileTheAPIIsAway(t *testing.T) {
	m, a := manager(t)
	pod := podWith(vol("api", corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
		{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token"}},
	}}}))
	if _, err := m.Setup(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	for key, held := range m.tokens.held {
		held.renewAt = time.Now().Add(-time.Second)
		m.tokens.held[key] = held
	}
	a.down = true
	next, err := m.Setup(t.Context(), pod)
	if err != nil || time.Until(next) > 2*time.Minute {
		t.Fatalf("next %v, %v", next, err)
	}
	a.down = false
	if _, err := m.Setup(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	if got := read(t, m.Path(pod, &pod.Spec.Volumes[0]), "token"); got != "token-2" {
		t.Errorf("token = %s", got)
	}
}

// TestSubPathCannotEscape plays a container that swaps parts of a path.
func TestSubPathCannotEscape(t *testing.T) {
	m, _ := manager(t)
	pod := podWith(vol("data", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}))
	if _, err := m.Setup(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	root := m.Path(pod, &pod.Spec.Volumes[0])
	outside := t.TempDir()
	for link, target := range map[string]string{"abs": outside, "rel": "../../../../..", "loop": "loop", "proc": "/proc/self/root", "in": "real"} {
		if err := os.Symlink(target, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(root, "real"), 0o755); err != nil {
		t.Fatal(err)
	}
	mount := func(sub, expr string) error {
		c := &corev1.Container{Name: "c", VolumeMounts: []corev1.VolumeMount{{Name: "data", MountPath: "/data", SubPath: sub, SubPathExpr: expr}}}
		_, err := m.Mounts(pod, c, []corev1.EnvVar{{Name: "NAME", Value: "made/here"}})
		return err
	}
	for _, bad := range []string{"abs", "abs/x", "rel", "rel/etc", "loop", "proc/etc", "../x", "a/../../x", "/etc"} {
		if err := mount(bad, ""); err == nil {
			t.Errorf("subPath %q was accepted", bad)
		}
	}
	if err := mount("", "$(MISSING)"); err == nil || !strings.Contains(err.Error(), "MISSING") {
		t.Errorf("subPathExpr: %v", err)
	}
	for _, good := range []string{"real", "in", "new/deep/folder"} {
		if err := mount(good, ""); err != nil {
			t.Errorf("subPath %q: %v", good, err)
		}
	}
	if err := mount("", "$(NAME)"); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(root, "made", "here")); err != nil {
		t.Error(err)
	}
	// Taking the pod down must not follow its mounts or links outside.
	if err := os.WriteFile(filepath.Join(outside, "precious"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := m.Teardown(t.Context(), pod.UID); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(outside, "precious")); err != nil {
		t.Error(err)
	}
}
