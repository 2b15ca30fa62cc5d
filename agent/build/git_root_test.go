package build

import (
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"lighter.dev/lighter/api/v1alpha1"
)

// repository serves a Git repository with a branch and a folder over HTTP, and
// returns its URL.
func repository(t *testing.T) string {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("git is missing")
	}
	work := folder(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY f /f\n", "f": "main", "app/Prod": "FROM scratch\nCOPY g /f\n", "app/g": "folder"})
	git := func(args ...string) {
		t.Helper()
		cmd := exec.Command("git", append([]string{"-c", "user.name=t", "-c", "user.email=t@example.test", "-c", "init.defaultBranch=main"}, args...)...)
		cmd.Dir = work
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v: %s", args, err, out)
		}
	}
	git("init", "-q")
	git("add", ".")
	git("commit", "-q", "-m", "one")
	git("checkout", "-q", "-b", "other")
	write(t, filepath.Join(work, "f"), "branch")
	git("commit", "-q", "-a", "-m", "two")
	git("checkout", "-q", "main")
	served := t.TempDir()
	git("clone", "-q", "--bare", work, filepath.Join(served, "shop.git"))
	work = filepath.Join(served, "shop.git")
	git("update-server-info") // for the protocol that needs no program
	server := httptest.NewServer(http.FileServer(http.Dir(served)))
	t.Cleanup(server.Close)
	return server.URL + "/shop.git"
}

// TestGitSource: the builder clones by itself; the client sends no folder.
func TestGitSource(t *testing.T) {
	h := newHost(t)
	url := repository(t)
	for _, test := range []struct {
		name       string
		git        v1alpha1.GitSource
		dockerfile string
		want       string
	}{
		{"default branch", v1alpha1.GitSource{URL: url}, "", "main"},
		{"branch, and a URL without .git", v1alpha1.GitSource{URL: strings.TrimSuffix(url, ".git"), Ref: "other"}, "", "branch"},
		{"folder", v1alpha1.GitSource{URL: url, Path: "app"}, "Prod", "folder"},
	} {
		h.image("git", func(s *v1alpha1.ImageSpec) {
			s.Source = v1alpha1.ImageSource{Git: &test.git}
			s.Dockerfile = test.dockerfile
		})
		cfg := h.client("git", "", nil)
		cfg.Dockerfile = test.dockerfile
		if _, err := buildPlain(t, cfg); err != nil {
			t.Errorf("%s: %v", test.name, err)
			continue
		}
		if got := h.read("git", "f"); got != test.want {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
	}
	h.image("git", func(s *v1alpha1.ImageSpec) {
		s.Source = v1alpha1.ImageSource{Git: &v1alpha1.GitSource{URL: url, Ref: "none"}}
	})
	if _, err := buildPlain(t, h.client("git", "", nil)); err == nil || !strings.Contains(err.Error(), "none") {
		t.Errorf("a branch that is not there: %v", err)
	}
}
