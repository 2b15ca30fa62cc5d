package image

import (
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	corev1 "k8s.io/api/core/v1"

	"lighter.dev/lighter/api/v1alpha1"
)

func TestForPod(t *testing.T) {
	id := func(n int64) *int64 { return &n }
	base := ocispec.ImageConfig{Entrypoint: []string{"/entry"}, Cmd: []string{"arg"}, Env: []string{"PATH=/bin", "MODE=slow"}, WorkingDir: "/srv", User: "app"}
	secret := &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{Key: "k"}}
	tests := []struct {
		what string
		pod  corev1.PodSpec
		c    corev1.Container
		want ocispec.ImageConfig
	}{
		{"nothing set", corev1.PodSpec{}, corev1.Container{}, base},
		{
			"a command goes without the image's arguments", corev1.PodSpec{}, corev1.Container{Command: []string{"sh", "-c"}},
			ocispec.ImageConfig{Entrypoint: []string{"sh", "-c"}, Env: base.Env, WorkingDir: "/srv", User: "app"},
		},
		{
			"arguments, folder, user", corev1.PodSpec{SecurityContext: &corev1.PodSecurityContext{RunAsUser: id(7), RunAsGroup: id(8)}},
			corev1.Container{Args: []string{"-v"}, WorkingDir: "/tmp", SecurityContext: &corev1.SecurityContext{RunAsUser: id(9)}},
			ocispec.ImageConfig{Entrypoint: base.Entrypoint, Cmd: []string{"-v"}, Env: base.Env, WorkingDir: "/tmp", User: "9:8"},
		},
		{
			"literal variables only, secrets not even by reference", corev1.PodSpec{},
			corev1.Container{
				Args: []string{"$(MODE)", "$(PASSWORD)"},
				Env: []corev1.EnvVar{
					{Name: "PASSWORD", ValueFrom: secret}, {Name: "MODE", Value: "fast"},
					{Name: "URL", Value: "db:$(PASSWORD)/$(MODE)"},
				},
			},
			ocispec.ImageConfig{
				Entrypoint: base.Entrypoint, Cmd: []string{"fast", "$(PASSWORD)"},
				Env: []string{"PATH=/bin", "MODE=fast", "URL=db:$(PASSWORD)/fast"}, WorkingDir: "/srv", User: "app",
			},
		},
	}
	named := &corev1.Pod{}
	named.Annotations = map[string]string{v1alpha1.ContainerAnnotation: `{"user":"web:staff","stopSignal":"SIGINT"}`}
	got := base
	if ForPod(named, &corev1.Container{}).Change(&got); got.User != "web:staff" || got.StopSignal != "SIGINT" {
		t.Errorf("what \"lighter run\" set: %+v", got)
	}
	for _, tt := range tests {
		t.Run(tt.what, func(t *testing.T) {
			got := base
			ForPod(&corev1.Pod{Spec: tt.pod}, &tt.c).Change(&got)
			if !slices.Equal(got.Entrypoint, tt.want.Entrypoint) || !slices.Equal(got.Cmd, tt.want.Cmd) ||
				!slices.Equal(got.Env, tt.want.Env) || got.WorkingDir != tt.want.WorkingDir || got.User != tt.want.User {
				t.Errorf("got %+v\nwant %+v", got, tt.want)
			}
		})
	}
	if !slices.Equal(base.Env, []string{"PATH=/bin", "MODE=slow"}) {
		t.Errorf("the image's own configuration changed: %v", base.Env)
	}
}

func TestOwnMounts(t *testing.T) {
	got := ForPod(&corev1.Pod{}, &corev1.Container{
		TerminationMessagePath: "/last/words", VolumeMounts: []corev1.VolumeMount{{MountPath: "/data"}, {MountPath: "/var/run/secrets/kubernetes.io/serviceaccount"}},
	}).MountPoints
	if want := []string{"/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/var/run/secrets/kubernetes.io/serviceaccount", "/last/words"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestChoose(t *testing.T) {
	at := func(n int, name string) ocispec.Descriptor {
		d := (&fixture{blobs: map[digest.Digest][]byte{}}).add(ocispec.MediaTypeImageManifest, []byte{byte(n)})
		d.Annotations = map[string]string{"io.containerd.image.name": name}
		return d
	}
	a, b := at(1, "docker.io/library/a:1"), at(2, "reg.example/b:2")
	again := b
	again.Annotations = map[string]string{"org.opencontainers.image.ref.name": "2"}
	tests := []struct {
		what   string
		all    []ocispec.Descriptor
		choice string
		want   ocispec.Descriptor
		text   string
	}{
		{"the only one", []ocispec.Descriptor{a}, "", a, ""},
		{"one of two names", []ocispec.Descriptor{b, again}, "", b, ""},
		{"several, none chosen", []ocispec.Descriptor{a, b}, "", a, "holds 2 images, choose one: docker.io/library/a:1, reg.example/b:2"},
		{"by short name", []ocispec.Descriptor{a, b}, "a:1", a, ""},
		{"by full name", []ocispec.Descriptor{a, b}, "reg.example/b:2", b, ""},
		{"by what the archive calls it", []ocispec.Descriptor{a, again}, "2", b, ""},
		{"by digest", []ocispec.Descriptor{a, b}, "a@" + b.Digest.String(), b, ""},
		{"none such", []ocispec.Descriptor{a, b}, "c", a, "holds no image c, only: docker.io"},
		{"empty", nil, "", a, "holds no image"},
	}
	for _, tt := range tests {
		t.Run(tt.what, func(t *testing.T) {
			got, err := choose(tt.all, tt.choice)
			if (err == nil) != (tt.text == "") || err != nil && !strings.Contains(err.Error(), tt.text) || err == nil && got.Digest != tt.want.Digest {
				t.Errorf("%v, %v", got, err)
			}
		})
	}
}
