package volume

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func content(text string) file { return file{[]byte(text), 0o644, -1} }

func read(t *testing.T, parts ...string) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(parts...))
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func TestWriteAtomically(t *testing.T) {
	dir := t.TempDir()
	if err := writeAtomically(dir, payload{"a": content("1"), "sub/b": content("2")}, nil); err != nil {
		t.Fatal(err)
	}
	if read(t, dir, "a") != "1" || read(t, dir, "sub", "b") != "2" {
		t.Fatal("wrong content")
	}
	version, err := os.Readlink(filepath.Join(dir, dataLink))
	if err != nil {
		t.Fatal(err)
	}
	// The same again changes nothing, so that watchers see no event.
	if err := writeAtomically(dir, payload{"a": content("1"), "sub/b": content("2")}, nil); err != nil {
		t.Fatal(err)
	}
	if again, _ := os.Readlink(filepath.Join(dir, dataLink)); again != version {
		t.Error("an equal payload was written again")
	}
	// Who holds the old version open keeps reading it.
	old, err := os.Open(filepath.Join(dir, "a"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = old.Close() }()
	if err := writeAtomically(dir, payload{"a": content("3"), "c": content("4")}, nil); err != nil {
		t.Fatal(err)
	}
	var names []string
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if len(names) != 4 || !slices.Contains(names, "a") || !slices.Contains(names, "c") || slices.Contains(names, "sub") {
		t.Errorf("names = %v", names)
	}
	buf := make([]byte, 1)
	if _, err := old.Read(buf); err != nil || string(buf) != "1" || read(t, dir, "a") != "3" {
		t.Errorf("old %q (%v), new %q", buf, err, read(t, dir, "a"))
	}
}

func TestNamesStayInside(t *testing.T) {
	for _, name := range []string{"", "/etc/passwd", "../x", "a/../../x", "..data"} {
		if err := writeAtomically(t.TempDir(), payload{name: content("x")}, nil); err == nil {
			t.Errorf("%q was accepted", name)
		}
	}
}
