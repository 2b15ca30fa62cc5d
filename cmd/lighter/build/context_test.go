package build

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const dockerfile = "FROM scratch\nCOPY a /a\n"

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path ...string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// archive makes a tar stream.
func archive(t *testing.T, headers ...tar.Header) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, h := range headers {
		body := []byte(h.Linkname)
		if h.Typeflag != tar.TypeReg {
			body = nil
		} else {
			h.Linkname = ""
		}
		h.Mode, h.Size = 0o644, int64(len(body))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// file is a regular file; archive finds its text in Linkname.
func file(name, text string) tar.Header {
	return tar.Header{Name: name, Typeflag: tar.TypeReg, Linkname: text}
}

func open(t *testing.T, argument, file string, stdin string) *Context {
	t.Helper()
	c, err := Open(t.Context(), argument, file, strings.NewReader(stdin))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		for _, dir := range c.temporary {
			if exists(dir) {
				t.Errorf("%s is left", dir)
			}
		}
	})
	return c
}

func TestFolders(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	write(t, filepath.Join(dir, "docker/Prod"), dockerfile)
	write(t, filepath.Join(outside, "Other"), dockerfile)
	t.Chdir(dir)
	for _, test := range []struct {
		file                     string
		dockerfile, beside, name string
	}{
		{"", "", "", ""},
		{"docker/Prod", "docker/Prod", "", ""},
		{filepath.Join(dir, "docker/Prod"), "docker/Prod", "", ""},
		{filepath.Join(outside, "Other"), "Other", outside, "Other"},
	} {
		c := open(t, ".", test.file, "")
		if c.Dir != dir || c.Source.Path != dir || c.Dockerfile != test.dockerfile || c.DockerfileDir != test.beside || c.File != test.name {
			t.Errorf("-f %q: %+v", test.file, c)
		}
	}
	t.Chdir(outside)
	if c := open(t, dir, "docker/Prod", ""); c.Dockerfile != "docker/Prod" || c.DockerfileDir != "" {
		t.Errorf("a Dockerfile that is only in the context: %+v", c)
	}
	c := open(t, dir, "-", dockerfile)
	if c.Source.Path != dir || c.Dockerfile != "" || read(t, c.DockerfileDir, c.File) != dockerfile {
		t.Errorf("Dockerfile on standard input: %+v", c)
	}
}

func TestStreams(t *testing.T) {
	c := open(t, "-", "", dockerfile)
	if c.Source.Inline != dockerfile || read(t, c.DockerfileDir, c.File) != dockerfile {
		t.Errorf("Dockerfile: %+v", c)
	}
	if entries, err := os.ReadDir(c.Dir); err != nil || len(entries) != 0 {
		t.Errorf("its context: %v, %v", entries, err)
	}
	plain := archive(t, file("Dockerfile", dockerfile), file("sub/a", "text"), tar.Header{Name: "sub/link", Typeflag: tar.TypeSymlink, Linkname: "a"})
	var zipped bytes.Buffer
	w := gzip.NewWriter(&zipped)
	if _, err := w.Write(plain); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/context" {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write(zipped.Bytes())
	}))
	defer server.Close()
	for _, c := range []*Context{
		open(t, "-", "", string(plain)), open(t, "-", "sub/../Dockerfile", zipped.String()), open(t, server.URL+"/context", "", ""),
	} {
		if c.Source.Path == "" || read(t, c.Dir, "sub/link") != "text" || read(t, c.Dir, "Dockerfile") != dockerfile {
			t.Errorf("archive: %+v", c)
		}
	}
	if _, err := Open(t.Context(), server.URL+"/none", "", nil); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("a page that is not there: %v", err)
	}
}

func TestRepositories(t *testing.T) {
	for argument, want := range map[string][3]string{
		"https://example.test/shop.git":          {"https://example.test/shop.git", "", ""},
		"https://example.test/shop.git#v1:app/x": {"https://example.test/shop.git", "v1", "app/x"},
		"git://example.test/shop#main":           {"git://example.test/shop", "main", ""},
		"github.com/team/shop":                   {"https://github.com/team/shop", "", ""},
	} {
		c := open(t, argument, "docker/Prod", "")
		if git := c.Source.Git; git == nil || git.URL != want[0] || git.Ref != want[1] || git.Path != want[2] || c.Dir != "" || c.Dockerfile != "docker/Prod" {
			t.Errorf("%s: %+v", argument, c.Source.Git)
		}
	}
}

func TestMistakes(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "file"), "x")
	for _, test := range []struct{ argument, file, stdin, want string }{
		{"/nowhere", "", "", "no such folder"},
		{filepath.Join(dir, "file"), "", "", "is a file"},
		{"-", "-", dockerfile, "cannot be both"},
		{"-", "", "  \n", "standard input is empty"},
		{"-", "Prod", dockerfile, "a Dockerfile itself"},
		{"-", "", "FROM x\n\x00", "neither a Dockerfile nor a tar archive"},
		{"-", "", strings.Repeat("#\n", maxDockerfile), "larger than"},
		{"-", "", "\xfd7zXZ\x00more", "xz is not read"},
		{"-", "", string(archive(t, file("../out", "x"))), "out: it leads out of the context"},
		{"-", "", string(archive(t, file("/etc/out", "x"))), "out: it leads out of the context"},
		{"-", "", string(archive(t, tar.Header{Name: "way", Typeflag: tar.TypeSymlink, Linkname: dir}, file("way/file", "gone"))), "way/file"},
		{"-", "", string(archive(t, tar.Header{Name: "hard", Typeflag: tar.TypeLink, Linkname: "../../etc/passwd"})), "hard"},
		{"-", "", string(archive(t, tar.Header{Name: "pipe", Typeflag: tar.TypeFifo})), "pipe: it is neither a file"},
		{"-", "", string(archive(t, file("a", strings.Repeat("x", 9999)))[:2000]), "unexpected EOF"},
		{"https://example.test/x.git", "-", dockerfile, "has to be in the repository"},
	} {
		_, err := Open(t.Context(), test.argument, test.file, strings.NewReader(test.stdin))
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%.40q: %v, want %q", test.argument+test.file+test.stdin, err, test.want)
		}
	}
	if text := read(t, dir, "file"); text != "x" {
		t.Errorf("an archive wrote out of its folder: %q", text)
	}
	if _, err := Open(t.Context(), "-", "", io.MultiReader(strings.NewReader("FROM"), brokenReader{})); err == nil {
		t.Error("a broken pipe was taken for the end")
	}
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, io.ErrClosedPipe }
