package image

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	corev1 "k8s.io/api/core/v1"
)

// builtAs puts an image into a store as a build of an Image object of a
// namespace would, under a full name.
func builtAs(t *testing.T, s *Store, namespace, name string, files map[string]string) Image {
	t.Helper()
	img := importRootFS(t, s, "tmp/x", files)
	img, err := s.Promote(context.Background(), namespace, []string{name}, target(t, s, img))
	must(t, err)
	must(t, s.Untag(context.Background(), "tmp/x"))
	return img
}

// TestBuildsStayInTheirNamespace: an Image object that claims a name of a
// registry gets nobody's pods but those of its own namespace.
func TestBuildsStayInTheirNamespace(t *testing.T) {
	reg := &fakeRegistry{image: newFixture(t, map[string]string{"a": "genuine"})}
	srv := httptest.NewServer(reg)
	defer srv.Close()
	ref := srv.Listener.Addr().String() + "/web:v1"
	s := open(t, nil)
	ctx := context.Background()
	mine := builtAs(t, s, "default", ref, map[string]string{"a": "built"})
	s.cfg.Builds = fixedBuilds{ref: mine.Target}
	for _, tt := range []struct {
		namespace string
		want      digest.Digest
	}{
		{"default", mine.Target}, {"other", reg.image.manifest.Digest},
		{"default", mine.Target}, {"", reg.image.manifest.Digest},
	} {
		for _, policy := range []corev1.PullPolicy{corev1.PullAlways, corev1.PullIfNotPresent, corev1.PullNever} {
			got, err := s.Ensure(ctx, Request{Namespace: tt.namespace, Ref: ref, Policy: policy})
			must(t, err)
			if got.Target != tt.want {
				t.Errorf("namespace %q, %s: got %s, want %s", tt.namespace, policy, got.Target, tt.want)
			}
		}
	}
	// Nor does knowing the digest help; where the Image is gone, its namespace
	// keeps what its pods are pinned to.
	s.cfg.Builds = nil
	for namespace, ok := range map[string]bool{"default": true, "other": false, "": false} {
		for _, req := range []Request{{Ref: ref, Pin: mine.Target}, {Ref: ref + "@" + mine.Target.String()}} {
			req.Namespace, req.Policy = namespace, corev1.PullIfNotPresent
			if _, err := s.Ensure(ctx, req); (err == nil) != ok || err != nil && !errors.Is(err, ErrPull) {
				t.Errorf("by digest in %q: %v", namespace, err)
			}
		}
		if _, err := s.Get(ctx, namespace, ref+"@"+mine.Target.String()); (err == nil) != ok {
			t.Errorf("get by digest in %q: %v", namespace, err)
		}
	}
	// Without the Image the name means the registry's again.
	if got, err := s.Ensure(ctx, Request{Namespace: "default", Ref: ref, Policy: corev1.PullAlways}); err != nil || got.Target != reg.image.manifest.Digest {
		t.Errorf("after the Image is gone: %s, %v", got.Target, err)
	}
	all, err := s.List(ctx)
	must(t, err)
	i := slices.IndexFunc(all, func(sum Summary) bool { return sum.Digest == mine.Target })
	if i < 0 || !slices.Equal(all[i].Namespaces, []string{"default"}) || all[i].Names[0] != ref {
		t.Errorf("list: %+v", all)
	}
}

// TestOneNameInTwoNamespaces: each has its own build of it.
func TestOneNameInTwoNamespaces(t *testing.T) {
	const name = "docker.io/library/nginx:latest"
	s := open(t, nil)
	a := builtAs(t, s, "team-a", name, map[string]string{"a": "a"})
	b := builtAs(t, s, "team-b", name, map[string]string{"a": "b"})
	s.cfg.Builds = byNamespace{"team-a": a.Target, "team-b": b.Target}
	for namespace, want := range map[string]Image{"team-a": a, "team-b": b} {
		got, err := s.Ensure(context.Background(), Request{Namespace: namespace, Ref: "nginx"})
		must(t, err)
		if got.Target != want.Target {
			t.Errorf("%s got %s, want %s", namespace, got.Target, want.Target)
		}
	}
	if _, err := s.Ensure(context.Background(), Request{Namespace: "team-c", Ref: "nginx", Policy: corev1.PullNever}); !errors.Is(err, ErrNeverPull) {
		t.Errorf("a third namespace: %v", err)
	}
}

// byNamespace declares one name for every namespace in it.
type byNamespace map[string]digest.Digest

func (f byNamespace) Lookup(_ context.Context, namespace, _ string) (digest.Digest, bool) {
	d, ok := f[namespace]
	return d, ok
}

// TestPeersKeepNamespacesApart: a peer gives a build to hosts that ask for its
// namespace, by digest only, and nothing by its record.
func TestPeersKeepNamespacesApart(t *testing.T) {
	const name = "docker.io/library/shop:latest"
	ca := newAuthority(t)
	a := open(t, nil)
	img := builtAs(t, a, "team-a", name, map[string]string{"a": "x"})
	peer := ca.serve(t, a.Handler())
	b := open(t, func(c *Config) {
		c.TLS = ca.client(t, "b")
		c.Peers = fixedPeers{holders: []Peer{peer}, named: []Peer{peer}}
	})
	ctx := b.in(context.Background())
	for _, path := range []string{name, BuiltName("team-a", name), "built%2Fteam-a%2F" + name} {
		if _, err := b.getSmall(ctx, peer, "/content/ref/"+path); !errdefs.IsNotFound(err) {
			t.Errorf("by name %s: %v", path, err)
		}
	}
	// The other namespace may even have an Image whose status claims the digest.
	b.cfg.Builds = byNamespace{"team-a": img.Target, "team-b": img.Target}
	for namespace, ok := range map[string]bool{"team-b": false, "team-a": true} {
		_, err := b.Ensure(ctx, Request{Namespace: namespace, Ref: "shop"})
		if (err == nil) != ok || err != nil && !errors.Is(err, ErrPull) {
			t.Errorf("%s: %v", namespace, err)
		}
	}
	if _, err := b.Ensure(ctx, Request{Namespace: "team-b", Ref: "shop"}); !errors.Is(err, ErrPull) {
		t.Errorf("team-b, now that this host has it: %v", err)
	}
	// A build whose Image is gone reaches its pods on other hosts as its
	// namespace's still: there, too, the digest is of no use to others.
	c := open(t, func(c *Config) { c.TLS, c.Peers = ca.client(t, "c"), fixedPeers{holders: []Peer{peer}} })
	_, err := c.Ensure(ctx, Request{Namespace: "team-a", Ref: "127.0.0.1:1/shop:v1", Pin: img.Target})
	must(t, err)
	if _, err := c.Ensure(ctx, Request{Namespace: "team-b", Ref: "127.0.0.1:1/shop:v1", Pin: img.Target}); !errors.Is(err, ErrPull) {
		t.Errorf("by digest on a host that pulled it for its namespace: %v", err)
	}
	resp, err := askPeer(ctx, b.peers, http.MethodGet, peer, "/content/"+img.Manifest.String(), 0)
	must(t, err)
	must(t, resp.Body.Close())
}

// TestBases: a build gets the base of its own namespace, under a name that no
// Dockerfile may spell.
func TestBases(t *testing.T) {
	const name = "docker.io/library/base:latest"
	s := open(t, nil)
	ctx := context.Background()
	img := builtAs(t, s, "team-a", name, map[string]string{"a": "x"})
	s.cfg.Builds = byNamespace{"team-a": img.Target}
	use, err := s.EnsureNearby(ctx, "team-a", "base")
	must(t, err)
	if rec, err := s.ResolveBase(ctx, use); err != nil || rec.Target.Digest != img.Target {
		t.Errorf("%s: %v, %v", use, rec.Target, err)
	}
	if _, err := s.EnsureNearby(ctx, "team-b", use); !errors.Is(err, ErrInvalidName) {
		t.Errorf("a Dockerfile that names the build of another namespace: %v", err)
	}
	if _, err := s.Ensure(ctx, Request{Namespace: "team-b", Ref: use}); !errors.Is(err, ErrInvalidName) {
		t.Errorf("a pod that does: %v", err)
	}
	if other, err := s.EnsureNearby(ctx, "team-b", "base"); err != nil || other != "base" {
		t.Errorf("another namespace: %q, %v", other, err)
	}
	if _, err := s.ResolveBase(ctx, name); !errdefs.IsNotFound(err) {
		t.Errorf("the plain name: %v", err)
	}
}
