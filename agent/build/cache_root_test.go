package build

import (
	"context"
	"net/http"
	"net/http/httptest"
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

// rerun builds twice with a change in between and returns the steps that ran
// the second time.
func (h *host) rerun(t *testing.T, name, dir string, change func(), pull bool) []string {
	t.Helper()
	h.image(name, nil)
	build := func() string {
		cfg := h.client(name, dir, nil)
		cfg.Pull = pull
		res, err := buildPlain(t, cfg)
		if err != nil {
			t.Fatal(err)
		}
		return res.out
	}
	build()
	change()
	_, ran := steps(build())
	return ran
}

// TestCacheOfAdd: as COPY, by content; a URL by what the server answers.
func TestCacheOfAdd(t *testing.T) {
	h := newHost(t)
	h.base()
	answer := "one"
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(answer)) }))
	defer web.Close()
	// The fetch of a URL is a step of the same name that always runs: the RUN
	// steps tell what was taken from the cache.
	dockerfile := "FROM busybox\nADD a.txt /\nRUN echo file\nADD " + web.URL + "/f /f\nRUN echo url\n"
	all := []string{"RUN echo file", "RUN echo url"}
	dir := folder(t, map[string]string{"Dockerfile": dockerfile, "a.txt": "a"})
	for _, test := range []struct {
		name   string
		change func()
		ran    []string
	}{
		{"nothing", func() {}, nil},
		{"a file's time", func() {
			if err := os.Chtimes(filepath.Join(dir, "a.txt"), time.Unix(1, 0), time.Unix(1, 0)); err != nil {
				t.Fatal(err)
			}
		}, nil},
		{"a file's mode", func() {
			if err := os.Chmod(filepath.Join(dir, "a.txt"), 0o755); err != nil {
				t.Fatal(err)
			}
		}, all},
		{"a file's content", func() { write(t, filepath.Join(dir, "a.txt"), "b") }, all},
		{"the server's content", func() { answer = "two" }, all[1:]},
	} {
		ran := slices.DeleteFunc(h.rerun(t, "add", dir, test.change, false), func(step string) bool { return strings.HasPrefix(step, "ADD") })
		if !slices.Equal(ran, test.ran) {
			t.Errorf("%s changed: %q ran again, want %q", test.name, ran, test.ran)
		}
	}
}

// TestCacheOfArguments: an ARG counts from its first use on, not before, and
// not in a stage that does not declare it.
func TestCacheOfArguments(t *testing.T) {
	h := newHost(t)
	h.base()
	dir := folder(t, map[string]string{"Dockerfile": "FROM busybox\nRUN echo before\nARG A\nCOPY f /f\nRUN echo $A\nRUN echo after\n", "f": "x"})
	args := map[string]string{}
	build := func() []string {
		h.image("args", func(s *v1alpha1.ImageSpec) { s.Args = args })
		res, err := buildPlain(t, h.client("args", dir, nil))
		if err != nil {
			t.Fatal(err)
		}
		_, ran := steps(res.out)
		return ran
	}
	build()
	args["A"] = "1"
	if ran, want := build(), []string{"RUN echo 1", "RUN echo after"}; !slices.Equal(ran, want) {
		t.Errorf("A=1: %q ran again, want %q", ran, want)
	}
	args["A"] = "2"
	if ran := build(); len(ran) != 2 {
		t.Errorf("A=2: %q ran again", ran)
	}
	args["A"] = "1"
	if ran := build(); len(ran) != 0 {
		t.Errorf("A=1, as before: %q ran again", ran)
	}
}

// TestCacheOfBase: another base image means another image.
func TestCacheOfBase(t *testing.T) {
	h := newHost(t)
	r := newRegistry(t, "")
	r.serve(t, "version", "one")
	dir := folder(t, map[string]string{"Dockerfile": "FROM " + r.host() + "/base\nCOPY f /f\nCOPY f /g\n", "f": "x"})
	if ran := h.rerun(t, "on", dir, func() {}, true); len(ran) != 0 {
		t.Errorf("the same base: %q ran again", ran)
	}
	if ran := h.rerun(t, "on", dir, func() { r.serve(t, "version", "two") }, true); len(ran) != 2 {
		t.Errorf("a new base: %q ran again", ran)
	}
}

// TestNoCache runs all steps, and leaves its result for the next build.
func TestNoCache(t *testing.T) {
	h := newHost(t)
	h.base()
	h.image("no", nil)
	cfg := h.client("no", folder(t, map[string]string{"Dockerfile": "FROM busybox\nRUN echo 1\nRUN echo 2\n"}), nil)
	for _, want := range []struct {
		noCache bool
		ran     int
	}{{false, 2}, {true, 2}, {false, 0}} {
		cfg.NoCache = want.noCache
		res, err := buildPlain(t, cfg)
		if err != nil {
			t.Fatal(err)
		}
		if _, ran := steps(res.out); len(ran) != want.ran {
			t.Errorf("no-cache %v: %q ran", want.noCache, ran)
		}
	}
}
