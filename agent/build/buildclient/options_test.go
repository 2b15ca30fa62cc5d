package buildclient

import (
	"bytes"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestParseOutput(t *testing.T) {
	for text, want := range map[string]Output{
		"out":                               {Type: "local", Dest: "out"},
		"-":                                 {Type: "tar", Dest: "-"},
		"type=local,dest=a":                 {Type: "local", Dest: "a"},
		"type=tar":                          {Type: "tar"},
		"type=oci,dest=x.tar,Compression=z": {Type: "oci", Dest: "x.tar", Attrs: map[string]string{"compression": "z"}},
		`type=docker,"dest=a,b.tar"`:        {Type: "docker", Dest: "a,b.tar"},
	} {
		got, err := ParseOutput(text)
		if err != nil || got.Type != want.Type || got.Dest != want.Dest || !maps.Equal(got.Attrs, want.Attrs) {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	for text, want := range map[string]string{
		"":                     "want a folder",
		"dest=x":               "type= is missing",
		"type=local":           "dest=FOLDER",
		"type=local,dest=-":    "dest=FOLDER",
		"type=image,push=true": "--push",
		"type=registry":        "--push",
		"type=x":               "want local",
		"type=tar,loud":        "want key=value",
		"type=tar,\"dest=x":    "type=tar",
	} {
		if _, err := ParseOutput(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

// TestOutputEntries: nothing is made before there is something to write.
func TestOutputEntries(t *testing.T) {
	dir := t.TempDir()
	dest := filepath.Join(dir, "x.tar")
	entry, err := Output{Type: "tar", Dest: dest}.entry(nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dest); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("made too early: %v", err)
	}
	w, err := entry.Output(nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	if _, err := (Output{Type: "tar", Dest: dir + "/none/x.tar"}).entry(nil); err == nil || !strings.Contains(err.Error(), "no folder") {
		t.Errorf("a folder that is missing: %v", err)
	}
	var out bytes.Buffer
	if entry, err = (Output{Type: "tar", Dest: "-"}).entry(&out); err != nil {
		t.Fatal(err)
	}
	if w, err = entry.Output(nil); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("x")); err != nil || w.Close() != nil || out.String() != "x" {
		t.Errorf("standard output got %q, %v", out.String(), err)
	}
	terminal, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0) // a character device, as a terminal is
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	if _, err := (Output{Type: "tar"}).entry(terminal); err == nil || !strings.Contains(err.Error(), "dest=FILE") {
		t.Errorf("an archive on a terminal: %v", err)
	}
}

func TestParseSecret(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "token")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("LIGHTER_TEST_TOKEN", "y")
	for text, want := range map[string][3]string{
		"id=a,src=" + file:                     {"a", file, ""},
		"id=a,type=file,source=" + file:        {"a", file, ""},
		"id=a,env=LIGHTER_TEST_TOKEN":          {"a", "", "LIGHTER_TEST_TOKEN"},
		"id=a,type=env,src=LIGHTER_TEST_TOKEN": {"a", "", "LIGHTER_TEST_TOKEN"},
		"id=LIGHTER_TEST_TOKEN":                {"LIGHTER_TEST_TOKEN", "", "LIGHTER_TEST_TOKEN"},
		"id=" + file:                           {file, file, ""},
	} {
		got, err := parseSecret(text)
		if err != nil || got.ID != want[0] || got.FilePath != want[1] || got.Env != want[2] {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	for text, want := range map[string]string{
		"src=" + file:               "id= is missing",
		"id=a,src=" + file + "none": "no such file",
		"id=a,src=" + dir:           "is a folder",
		"id=a,env=LIGHTER_NO_SUCH":  "no variable LIGHTER_NO_SUCH",
		"id=a,loud=x":               "want id, src or env",
		"id":                        "want key=value",
		"id=none-such":              "no such file",
	} {
		if _, err := secretProvider([]string{text}); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "--secret") {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

func TestParseSSH(t *testing.T) {
	if got := parseSSH("default"); got.ID != "default" || len(got.Paths) != 0 {
		t.Errorf("%+v", got)
	}
	if got := parseSSH("git=/a,/b"); got.ID != "git" || len(got.Paths) != 2 || got.Paths[1] != "/b" {
		t.Errorf("%+v", got)
	}
	t.Setenv("SSH_AUTH_SOCK", "")
	if _, err := (Config{SSH: []string{"default"}}).attachables(); err == nil || !strings.Contains(err.Error(), "SSH_AUTH_SOCK") {
		t.Errorf("without an agent: %v", err)
	}
}

// TestOptions: what the builder is asked for.
func TestOptions(t *testing.T) {
	dir := t.TempDir()
	opt, err := Config{Namespace: "ns", Name: "shop", NoCache: true, Pull: true, Platform: "linux/arm64", Labels: map[string]string{"a": "b"}, Dockerfile: "Prod"}.options(dir)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"filename": "Prod", "no-cache": "", "image-resolve-mode": "pull", "platform": "linux/arm64", "label:a": "b"}
	if !maps.Equal(opt.FrontendAttrs, want) || len(opt.LocalMounts) != 2 || opt.SharedKey != "ns/shop:"+dir {
		t.Errorf("%+v", opt)
	}
	if opt, err = (Config{}).options(""); err != nil || len(opt.LocalMounts) != 0 {
		t.Errorf("without a folder: %+v, %v", opt, err)
	}
}

// TestFiles: what is in memory is told apart by content, as all of it has the
// same age.
func TestFiles(t *testing.T) {
	key := func(files map[string]string) string {
		config := Config{Namespace: "ns", Name: "shop", Files: map[string][]byte{}}
		for name, text := range files {
			config.Files[name] = []byte(text)
		}
		opt, err := config.options("")
		if err != nil || len(opt.LocalMounts) != 2 {
			t.Fatalf("%+v, %v", opt, err)
		}
		var seen []string
		err = opt.LocalMounts["context"].Walk(t.Context(), "", func(path string, _ fs.DirEntry, err error) error {
			seen = append(seen, path)
			return err
		})
		if err != nil || len(seen) != len(files) {
			t.Errorf("%v has %v, %v", files, seen, err)
		}
		return opt.SharedKey
	}
	first := key(map[string]string{"Dockerfile": "FROM a", "x": "1"})
	if first != key(map[string]string{"x": "1", "Dockerfile": "FROM a"}) {
		t.Error("the same files have another key")
	}
	for _, other := range []map[string]string{{"Dockerfile": "FROM a", "x": "2"}, {"Dockerfile": "FROM ax", "": "1"}, {"Dockerfile": "FROM a"}} {
		if key(other) == first {
			t.Errorf("%v has the key of other files", other)
		}
	}
}
