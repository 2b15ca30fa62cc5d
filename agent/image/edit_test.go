package image

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"lighter.dev/lighter/api/agentapi"
)

func TestEdit(t *testing.T) {
	tests := []struct {
		lines []string
		want  func(*ocispec.ImageConfig)
		err   string
	}{
		{nil, func(*ocispec.ImageConfig) {}, ""},
		{[]string{`CMD ["sleep", "1d"]`}, func(c *ocispec.ImageConfig) { c.Cmd = []string{"sleep", "1d"} }, ""},
		{[]string{`entrypoint echo $A`}, func(c *ocispec.ImageConfig) { c.Entrypoint = []string{"/bin/sh", "-c", "echo $A"} }, ""},
		{[]string{"ENV A=2 B='x y'", "ENV C=$A$B"}, func(c *ocispec.ImageConfig) { c.Env = []string{"PATH=/bin", "A=2", "B=x y", "C=2x y"} }, ""},
		{[]string{"WORKDIR data$A", "WORKDIR ../x"}, func(c *ocispec.ImageConfig) { c.WorkingDir = "/srv/x" }, ""},
		{[]string{"USER 1000:1000", "STOPSIGNAL SIGINT"}, func(c *ocispec.ImageConfig) { c.User, c.StopSignal = "1000:1000", "SIGINT" }, ""},
		{[]string{"EXPOSE 80 53/UDP"}, func(c *ocispec.ImageConfig) {
			c.ExposedPorts = map[string]struct{}{"80/tcp": {}, "53/udp": {}}
		}, ""},
		{[]string{"VOLUME /data", "LABEL a=b"}, func(c *ocispec.ImageConfig) {
			c.Volumes, c.Labels = map[string]struct{}{"/data": {}}, map[string]string{"a": "b"}
		}, ""},
		{[]string{"RUN rm -rf /"}, nil, `change "RUN rm -rf /": it changes more than a configuration`},
		{[]string{"FROM x"}, nil, "changes more"},
		{[]string{"CMD a\nCMD b"}, nil, "want one instruction, not 2"},
		{[]string{"NONSENSE"}, nil, "NONSENSE"},
		{[]string{""}, nil, `change ""`},
		{[]string{"ENV A=${"}, nil, "change"},
	}
	for _, test := range tests {
		got := ocispec.Image{Config: ocispec.ImageConfig{Cmd: []string{"old"}, Env: []string{"PATH=/bin", "A=1"}, WorkingDir: "/srv"}}
		want := got.Config
		want.Env = slices.Clone(want.Env)
		edit, err := ParseEdit(agentapi.Edits{Changes: test.lines})
		if test.err != "" {
			if err == nil || !strings.Contains(err.Error(), test.err) || !errdefs.IsInvalidArgument(err) {
				t.Errorf("%q: %v, want %q", test.lines, err, test.err)
			}
			continue
		}
		if err == nil {
			err = edit.apply(&got)
		}
		if err != nil {
			t.Errorf("%q: %v", test.lines, err)
			continue
		}
		if test.want(&want); !reflect.DeepEqual(got.Config, want) {
			t.Errorf("%q: %+v, want %+v", test.lines, got.Config, want)
		}
	}
}

// TestEditHistory: author and message are of the step that is new.
func TestEditHistory(t *testing.T) {
	image := ocispec.Image{Author: "Old", History: []ocispec.History{{Author: "Old"}, {Comment: "lighter import"}}}
	edit, err := ParseEdit(agentapi.Edits{Author: "Ann", Message: "why"})
	if err == nil {
		err = edit.apply(&image)
	}
	if err != nil || image.Author != "Ann" || image.History[0].Author != "Old" || image.History[1] != (ocispec.History{Author: "Ann", Comment: "why"}) {
		t.Errorf("%+v, %v", image, err)
	}
	if !(Edit{}).empty() || edit.empty() {
		t.Error("empty")
	}
}
