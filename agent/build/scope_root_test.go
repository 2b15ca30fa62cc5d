package build

import (
	"context"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"lighter.dev/lighter/api/v1alpha1"
)

// oneName declares one name in each namespace of the map.
type oneName struct {
	name string
	by   map[string]digest.Digest
}

func (o oneName) Lookup(_ context.Context, namespace, ref string) (digest.Digest, bool) {
	d, ok := o.by[namespace]
	return d, ok && ref == o.name
}

// TestNamespacesBuildApart: the same tag built in two namespaces is two
// images, a FROM means that of the own namespace, and neither bases nor cache
// mounts are reached from another one.
func TestNamespacesBuildApart(t *testing.T) {
	needRoot(t)
	const tag = "127.0.0.1:1/base:v1" // a registry that nobody can ask
	known := oneName{tag, map[string]digest.Digest{}}
	h := &host{t: t, root: t.TempDir(), api: newFakeAPI(), events: &events{}, builds: known}
	h.start()
	t.Cleanup(h.stop)
	h.base()
	build := func(namespace, name, dockerfile string) (plainResult, error) {
		h.imageIn(namespace, name, func(s *v1alpha1.ImageSpec) {
			if name == "base" {
				s.Tags = []string{tag}
			}
		})
		return buildPlain(t, h.clientIn(namespace, name, folder(t, map[string]string{"Dockerfile": dockerfile}), nil))
	}
	for _, namespace := range []string{"team-a", "team-b"} {
		res, err := build(namespace, "base", "FROM busybox\nRUN --mount=type=cache,target=/c test ! -e /c/who && echo "+namespace+" > /c/who && cp /c/who /who\n")
		if err != nil {
			t.Fatal(err)
		}
		known.by[namespace] = res.Digest
		_, err = build(namespace, "child", "FROM "+tag+"\nRUN test $(cat /who) = "+namespace+"\nCOPY --from="+tag+" /who /copy\n")
		if err != nil {
			t.Fatal(err)
		}
		if img, err := h.store.Get(context.Background(), namespace, tag); err != nil || img.Target != known.by[namespace] {
			t.Errorf("%s: %v, %v", namespace, img.Target, err)
		}
	}
	if known.by["team-a"] == known.by["team-b"] {
		t.Fatal("the test needs two images")
	}
	secret := known.by["team-a"]
	for _, from := range []string{
		tag, tag + "@" + secret.String(),
		"team-a.lighter.invalid/base:sha256-" + secret.Encoded(), "built/team-a/" + tag,
	} {
		for _, dockerfile := range []string{"FROM " + from + "\n", "FROM busybox\nCOPY --from=" + from + " /who /copy\n"} {
			_, err := build("team-c", "thief", dockerfile)
			if err == nil {
				t.Errorf("a third namespace built:\n%s", dockerfile)
			} else if strings.Contains(from, "invalid") && !strings.Contains(err.Error(), "InvalidImageName") {
				t.Errorf("error: %v", err)
			}
		}
	}
}
