package build

import (
	"strings"
	"testing"

	"lighter.dev/lighter/api/v1alpha1"
)

// TestInlineBuild: the object's text is built, not the folder of a client that
// sends one, and a failure names the line.
func TestInlineBuild(t *testing.T) {
	h := newHost(t)
	h.base()
	source := func(text string) func(*v1alpha1.ImageSpec) {
		return func(spec *v1alpha1.ImageSpec) { spec.Source = v1alpha1.ImageSource{Inline: text} }
	}
	h.image("shop", source("FROM busybox\nRUN echo from the object > /who\n"))
	if _, err := buildPlain(t, h.client("shop", "", nil)); err != nil {
		t.Fatal(err)
	}
	if got := h.read("shop", "who"); got != "from the object\n" {
		t.Errorf("built %q", got)
	}
	dir := folder(t, map[string]string{"Dockerfile": "FROM busybox\nRUN echo from a client > /who\n"})
	if _, err := buildPlain(t, h.client("shop", dir, nil)); err != nil {
		t.Fatal(err)
	}
	if got := h.read("shop", "who"); got != "from the object\n" {
		t.Errorf("with a folder, built %q", got)
	}
	h.image("high", source("FROM nowhere.invalid/base:1\n"))
	if _, err := buildPlain(t, h.client("high", "", nil)); err == nil {
		t.Error("built on nothing")
	}
	if got := condition(h.api.status("high"), v1alpha1.ImageBuilt); got.Reason != v1alpha1.ReasonBaseUnavailable {
		t.Errorf("without its base: %+v", got)
	}
	h.image("bad", source("FROM busybox\nRUN echo why not; false\n"))
	_, err := buildPlain(t, h.client("bad", "", nil))
	if err == nil || !strings.Contains(err.Error(), "why not") || !strings.Contains(err.Error(), "Dockerfile:2") {
		t.Errorf("a failing step: %v", err)
	}
	if got := condition(h.api.status("bad"), v1alpha1.ImageBuilt); got.Reason != v1alpha1.ReasonBuildFailed {
		t.Errorf("after a failing step: %+v", got)
	}
}

// TestBuildFromMemory: files that only differ in content are not taken for those
// that the builder has.
func TestBuildFromMemory(t *testing.T) {
	h := newHost(t)
	h.base()
	h.image("shop", func(spec *v1alpha1.ImageSpec) {
		spec.Source = v1alpha1.ImageSource{ConfigMap: &v1alpha1.ConfigMapSource{Name: "x"}}
	})
	config := h.client("shop", "", nil)
	for _, want := range []string{"one", "two", "one"} {
		config.Files = map[string][]byte{"Dockerfile": []byte("FROM busybox\nCOPY a.txt /\n"), "a.txt": []byte(want)}
		if _, err := buildPlain(t, config); err != nil {
			t.Fatal(err)
		}
		if got := h.read("shop", "a.txt"); got != want {
			t.Errorf("built %q, want %q", got, want)
		}
	}
}
