package image

import (
	"errors"
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"
	corev1 "k8s.io/api/core/v1"
)

func TestDecide(t *testing.T) {
	const d1, d2 = digest.Digest("sha256:1"), digest.Digest("sha256:2")
	all := []step{useLocal, askPeers, askRegistry}
	tests := []struct {
		name     string
		image    string
		pin      digest.Digest
		policy   corev1.PullPolicy
		here     localState
		built    digest.Digest
		declared bool
		want     []step
		digest   digest.Digest
		err      error
	}{
		{name: "default of a version is IfNotPresent", image: "x:v1", want: all},
		{name: "default of latest is Always", image: "x:latest", want: []step{askRegistry, askPeers}},
		{name: "Always asks though it is here", image: "x:v1", policy: corev1.PullAlways, here: localState{Digest: d1}, want: []step{askRegistry, askPeers}},
		{name: "Always of an imported image does not", image: "x:latest", here: localState{Digest: d1, Own: true}, want: []step{useLocal, askPeers}},
		{name: "Never stays here", image: "x:v1", policy: corev1.PullNever, want: []step{useLocal}},
		{name: "a digest cannot change, so Always need not ask", image: "x", pin: d1, policy: corev1.PullAlways, want: []step{useLocal, fetchDigest}, digest: d1},
		{name: "declared, not built", image: "x:latest", declared: true, err: ErrNotBuilt},
		{name: "declared, not built, but pinned by an older build", image: "x:latest", pin: d1, declared: true, want: []step{useLocal, fetchDigest}, digest: d1},
		{name: "built, Always", image: "x:latest", built: d2, declared: true, policy: corev1.PullAlways, want: []step{useLocal, fetchDigest}, digest: d2},
		{name: "built, Never: peers are not a registry", image: "x:latest", built: d2, declared: true, policy: corev1.PullNever, want: []step{useLocal, fetchDigest}, digest: d2},
		{name: "built, pinned to an older version", image: "x:latest", pin: d1, built: d2, declared: true, want: []step{useLocal, fetchDigest}, digest: d1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			pl, err := decide(tt.image, tt.pin, tt.policy, tt.here, tt.built, tt.declared)
			if !errors.Is(err, tt.err) {
				t.Fatalf("error %v, want %v", err, tt.err)
			}
			if !slices.Equal(pl.Steps, tt.want) || pl.Want != tt.digest {
				t.Errorf("plan %v %q, want %v %q", pl.Steps, pl.Want, tt.want, tt.digest)
			}
		})
	}
}

func TestNormalize(t *testing.T) {
	const dgst = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	tests := []struct {
		ref, name string
		digest    digest.Digest
		err       error
	}{
		{ref: "shop", name: "docker.io/library/shop:latest"},
		{ref: "shop:v1", name: "docker.io/library/shop:v1"},
		{ref: "team/shop", name: "docker.io/team/shop:latest"},
		{ref: "reg.example:5000/a/b:c", name: "reg.example:5000/a/b:c"},
		{ref: "shop@" + dgst, name: "docker.io/library/shop", digest: dgst},
		{ref: "shop:v1@" + dgst, name: "docker.io/library/shop:v1", digest: dgst},
		{ref: "Shop", err: ErrInvalidName},
		{ref: "", err: ErrInvalidName},
		{ref: "a b", err: ErrInvalidName},
	}
	for _, tt := range tests {
		name, d, err := Normalize(tt.ref)
		if name != tt.name || d != tt.digest || !errors.Is(err, tt.err) {
			t.Errorf("Normalize(%q) = %q, %q, %v; want %q, %q, %v", tt.ref, name, d, err, tt.name, tt.digest, tt.err)
		}
	}
}

func TestQualify(t *testing.T) {
	for _, tt := range []struct{ ref, registry, want string }{
		{"shop", "", "shop"},
		{"shop:v1", "reg.example:5000", "reg.example:5000/shop:v1"},
		{"team/shop", "reg.example", "reg.example/team/shop"},
		{"other.example/shop", "reg.example", "other.example/shop"},
		{"localhost/shop", "reg.example", "localhost/shop"},
		{"host:1/shop", "reg.example", "host:1/shop"},
	} {
		if got := qualify(tt.ref, tt.registry); got != tt.want {
			t.Errorf("qualify(%q, %q) = %q, want %q", tt.ref, tt.registry, got, tt.want)
		}
	}
}

func TestMatchingCredentials(t *testing.T) {
	auth := []Credential{
		{Host: "https://index.docker.io/v1/", Username: "hub"},
		{Host: "reg.example/team", Username: "team"},
		{Host: "reg.example", Username: "all"},
		{Host: "*.wild.example", Username: "wild"},
		{Host: "http://other.example:5000", Username: "port"},
	}
	for _, tt := range []struct {
		host, repo string
		want       []string
	}{
		{"docker.io", "library/shop:v1", []string{"hub"}},
		{"registry-1.docker.io", "", []string{"hub"}},
		{"reg.example", "team/shop:v1", []string{"team", "all"}},
		{"reg.example", "teams/shop:v1", []string{"all"}},
		{"a.wild.example", "x", []string{"wild"}},
		{"a.b.wild.example", "x", nil},
		{"other.example:5000", "x", []string{"port"}},
		{"other.example", "x", nil},
	} {
		var got []string
		for _, c := range matching(auth, tt.host, tt.repo) {
			got = append(got, c.Username)
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("matching(%s, %s) = %v, want %v", tt.host, tt.repo, got, tt.want)
		}
	}
}
