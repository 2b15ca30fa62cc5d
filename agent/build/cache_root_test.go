package build

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"lighter.dev/lighter/api/v1alpha1"
)

const cacheDockerfile = `FROM busybox
WORKDIR /app
COPY a.txt .
RUN cat a.txt > copy.txt
COPY b.txt .
RUN cat b.txt >> copy.txt
`

// steps tells which steps of a plain progress output were taken from the cache.
func steps(out string) (cached, ran []string) {
	names := map[string]string{}
	for _, line := range strings.Split(out, "\n") {
		id, rest, ok := strings.Cut(line, " ")
		if !ok || !strings.HasPrefix(id, "#") {
			continue
		}
		if stepLine.MatchString(rest) {
			names[id] = rest[strings.Index(rest, "]")+2:]
		}
		name, isStep := names[id]
		switch {
		case !isStep || strings.HasPrefix(name, "FROM"):
		case rest == "CACHED":
			cached = append(cached, name)
		case strings.HasPrefix(rest, "DONE"):
			ran = append(ran, name)
		}
	}
	return cached, ran
}

var stepLine = regexp.MustCompile(`^\[[0-9]+/[0-9]+\] `)

// TestCacheRules: COPY hits by content, RUN by its command, and everything
// after the first miss is built anew.
func TestCacheRules(t *testing.T) {
	all := []string{"WORKDIR /app", "COPY a.txt .", "RUN cat a.txt > copy.txt", "COPY b.txt .", "RUN cat b.txt >> copy.txt"}
	tests := []struct {
		name   string
		change func(t *testing.T, h *host, dir string)
		// ran are the steps that run again.
		ran []string
		// same: the digest stays.
		same bool
	}{
		{"nothing changed", func(*testing.T, *host, string) {}, nil, true},
		{"only the time of a file", func(t *testing.T, _ *host, dir string) {
			now := time.Now().Add(time.Hour)
			if err := os.Chtimes(filepath.Join(dir, "a.txt"), now, now); err != nil {
				t.Fatal(err)
			}
		}, nil, true},
		{"a file that no step copies", func(t *testing.T, _ *host, dir string) {
			write(t, filepath.Join(dir, "other.txt"), "new")
		}, nil, true},
		{"content of the last copied file", func(t *testing.T, _ *host, dir string) {
			write(t, filepath.Join(dir, "b.txt"), "changed b")
		}, all[3:], false},
		{"content of the first copied file", func(t *testing.T, _ *host, dir string) {
			write(t, filepath.Join(dir, "a.txt"), "changed a")
		}, all[1:], false},
		{"command of a RUN", func(t *testing.T, _ *host, dir string) {
			write(t, filepath.Join(dir, "Dockerfile"), strings.Replace(cacheDockerfile, "cat b.txt >>", "cat b.txt b.txt >>", 1))
		}, []string{"RUN cat b.txt b.txt >> copy.txt"}, false},
		{"a comment in the Dockerfile", func(t *testing.T, _ *host, dir string) {
			write(t, filepath.Join(dir, "Dockerfile"), "# why\n"+cacheDockerfile)
		}, nil, true},
		{"a file that .dockerignore excludes", func(t *testing.T, _ *host, dir string) {
			write(t, filepath.Join(dir, ".dockerignore"), "secret*\n")
			write(t, filepath.Join(dir, "secret.txt"), "x")
		}, nil, true},
	}
	h := newHost(t)
	h.base()
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h.image("cache", nil)
			dir := folder(t, map[string]string{"Dockerfile": cacheDockerfile, "a.txt": "a of " + tt.name, "b.txt": "b of " + tt.name})
			first, out, err := h.build(context.Background(), "cache", dir)
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			tt.change(t, h, dir)
			second, out, err := h.build(context.Background(), "cache", dir)
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			if _, ran := steps(out); !slices.Equal(ran, tt.ran) {
				t.Errorf("steps run again: %q, want %q\n%s", ran, tt.ran, out)
			}
			if same := first.Digest == second.Digest; same != tt.same {
				t.Errorf("digest the same: %v, want %v", same, tt.same)
			}
		})
	}
}

// TestArgsAndTarget: what the Image says is what is built.
func TestArgsAndTarget(t *testing.T) {
	h := newHost(t)
	h.base()
	h.image("args", func(s *v1alpha1.ImageSpec) {
		s.Dockerfile = "docker/Prod.Dockerfile"
		s.Target, s.Args = "first", map[string]string{"WHO": "world"}
		s.Tags = []string{"args:v1", "example.test/team/args"}
	})
	dir := folder(t, map[string]string{"docker/Prod.Dockerfile": "FROM busybox AS first\nARG WHO=nobody\nRUN echo hello $WHO\nFROM first AS second\nRUN false\n"})
	cfg := h.client("args", dir, nil)
	cfg.Dockerfile = "docker/Prod.Dockerfile"
	res, err := buildPlain(t, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(res.out, "hello world") {
		t.Errorf("build argument was not used:\n%s", res.out)
	}
	for _, name := range []string{"args:v1", "example.test/team/args:latest"} {
		img, err := h.store.Get(context.Background(), "default", name)
		if err != nil || img.Target != res.Digest {
			t.Errorf("%s is %v, %v; want %s", name, img.Target, err, res.Digest)
		}
	}
}
