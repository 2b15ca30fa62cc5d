package reclaim

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"lighter.dev/lighter/agent/image"
)

// smallDisk is a file system of its own.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: mounts a small file system")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// realHost is an image store on a small disk. Its images came long ago.
type realHost struct {
	*Store
	events []string
}

func (h *realHost) Images(ctx context.Context) ([]Image, error) {
	images, err := h.Store.Images(ctx)
	for i := range images {
		images[i].Arrived = images[i].Arrived.Add(-time.Hour)
	}
	return images, err
}

func (h *realHost) Asked() map[digest.Digest]time.Time { return nil }
func (h *realHost) TrimCache(context.Context) error    { return nil }
func (h *realHost) Warn(reason, _ string)              { h.events = append(h.events, reason) }

// TestRealDisk: on a disk that is nearly full, the images that are not used give way,
// the oldest first, and the space is there again.
func TestRealDisk(t *testing.T) {
	dir := smallDisk(t, "128m")
	store, err := image.Open(t.Context(), image.Config{Root: filepath.Join(dir, "images")})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	names := []string{"one", "two", "three", "four", "five"}
	digests := map[string]digest.Digest{}
	for _, name := range names { // each takes 20 MiB: 10 packed, 10 unpacked
		img, err := store.Import(t.Context(), randomRootFS(t, 10<<20), name, "")
		if err != nil {
			t.Fatal(err)
		}
		digests[name] = img.Target
		if name == "one" {
			if _, err := store.Prepare(t.Context(), "c", img, false); err != nil {
				t.Fatal(err)
			}
		}
	}
	h := &realHost{Store: NewStore(store, dir, func(image.Summary) bool { return false })}
	r, err := New(Policy{High: 75, Low: 50}, filepath.Join(dir, "used.json"), h, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.turn(t.Context(), time.Now()); err != nil {
		t.Fatal(err)
	}
	left, err := store.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var have []digest.Digest
	for _, sum := range left {
		have = append(have, sum.Digest)
	}
	for _, name := range names {
		want := !slices.Contains([]string{"two", "three"}, name)
		if got := slices.Contains(have, digests[name]); got != want {
			t.Errorf("image %s is here: %t, want %t", name, got, want)
		}
	}
	if disk, err := h.Disk(); err != nil || disk.Percent() > 50 {
		t.Errorf("the disk is %d%% full, %v", disk.Percent(), err)
	}
	if h.events != nil {
		t.Errorf("events %v", h.events)
	}
	// Nothing but what is in use is left to remove: the user is told.
	if err := os.WriteFile(filepath.Join(dir, "other"), make([]byte, 60<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := r.turn(t.Context(), time.Now()); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(h.events, []string{reasonFreeFailed}) {
		t.Errorf("events %v", h.events)
	}
	if left, err := store.List(t.Context()); err != nil || len(left) != 1 || left[0].Digest != digests["one"] {
		t.Errorf("left: %+v, %v; want the image that a container uses", left, err)
	}
}

// randomRootFS is a root file system that cannot be compressed.
func randomRootFS(t *testing.T, size int) *bytes.Buffer {
	t.Helper()
	body := make([]byte, size)
	_, _ = rand.Read(body) // never fails
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	if err := w.WriteHeader(&tar.Header{Name: "data", Mode: 0o644, Size: int64(size)}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(body); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &out
}
