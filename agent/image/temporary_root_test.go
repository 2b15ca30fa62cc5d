package image

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestSweepTemporary: mounts go before what they cover could be removed.
func TestSweepTemporary(t *testing.T) {
	needRoot(t)
	dir, precious := filepath.Join(t.TempDir(), "tmp"), t.TempDir()
	must(t, SweepTemporary(dir)) // before there is one
	must(t, os.WriteFile(filepath.Join(precious, "file"), []byte("x"), 0o600))
	for _, name := range []string{"mount", "mount/below", "files/deep"} {
		must(t, os.MkdirAll(filepath.Join(dir, name), 0o700))
	}
	must(t, os.MkdirAll(filepath.Join(precious, "below"), 0o700))
	for _, name := range []string{"mount", "mount", "mount/below"} {
		must(t, unix.Mount(precious, filepath.Join(dir, name), "", unix.MS_BIND, ""))
	}
	link := filepath.Join(t.TempDir(), "link")
	must(t, os.Symlink(dir, link))
	must(t, SweepTemporary(link))
	if n := entries(t, dir); n != 0 {
		t.Errorf("%d entries are left", n)
	}
	if _, err := os.Stat(filepath.Join(precious, "file")); err != nil {
		t.Errorf("a file of what was mounted: %v", err)
	}
}
