package btrfs

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"golang.org/x/sys/unix"

	"lighter.dev/lighter/agent/image/btrfs/btrfstest"
)

func open(t *testing.T, root string) *snapshotter {
	t.Helper()
	sn, err := New(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := sn.Close(); err != nil {
			t.Error(err)
		}
	})
	return sn.(*snapshotter)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// prepare makes an active snapshot and returns its subvolume.
func prepare(t *testing.T, s *snapshotter, key, parent string) string {
	t.Helper()
	mounts, err := s.Prepare(t.Context(), key, parent)
	must(t, err)
	return mounts[0].Source
}

func subvolumes(t *testing.T, s *snapshotter) int {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(s.root, "snapshots"))
	must(t, err)
	return len(entries)
}

func TestElsewhere(t *testing.T) {
	const noBtrfs = "/proc"
	if err := checkFileSystem(noBtrfs); err == nil || err.Error() != "/proc is not on btrfs" {
		t.Errorf("%v", err)
	}
}

// TestCommitted: a committed snapshot cannot be written any more, not even by its
// own path, and shares its blocks with those made of it.
func TestCommitted(t *testing.T) {
	s := open(t, btrfstest.Mount(t))
	dir := prepare(t, s, "active", "")
	must(t, os.WriteFile(filepath.Join(dir, "a"), make([]byte, 1<<20), 0o644))
	must(t, s.Commit(t.Context(), "layer", "active"))
	if err := os.WriteFile(filepath.Join(dir, "b"), nil, 0o644); !errors.Is(err, unix.EROFS) {
		t.Errorf("write to a committed snapshot: %v", err)
	}
	child := prepare(t, s, "child", "layer")
	must(t, os.WriteFile(filepath.Join(child, "b"), make([]byte, 1<<16), 0o644))
	for key, want := range map[string][2]int64{"layer": {1 << 20, 1<<20 + 1<<17}, "child": {1 << 16, 1<<16 + 1<<16}} {
		if usage, err := s.Usage(t.Context(), key); err != nil || usage.Size < want[0] || usage.Size > want[1] {
			t.Errorf("usage of %s: %+v, %v; want between %d and %d bytes", key, usage, err, want[0], want[1])
		}
	}
	view, err := s.View(t.Context(), "view", "layer")
	must(t, err)
	if err := os.WriteFile(filepath.Join(view[0].Source, "b"), nil, 0o644); !errors.Is(err, unix.EROFS) {
		t.Errorf("write to a view: %v", err)
	}
	for _, key := range []string{"view", "child", "layer"} {
		must(t, s.Remove(t.Context(), key))
	}
	if n := subvolumes(t, s); n != 0 {
		t.Errorf("%d subvolumes are left", n)
	}
}

// TestNested: subvolumes that a container made go with its snapshot.
func TestNested(t *testing.T) {
	s := open(t, btrfstest.Mount(t))
	dir := prepare(t, s, "active", "")
	must(t, os.Mkdir(filepath.Join(dir, "plain"), 0o755))
	for _, nested := range []string{"one", "one/two", "plain/three"} {
		must(t, createSubvolume(filepath.Join(dir, nested)))
		must(t, os.WriteFile(filepath.Join(dir, nested, "a"), nil, 0o644))
	}
	must(t, setReadOnly(filepath.Join(dir, "one"), true))
	must(t, s.Commit(t.Context(), "layer", "active"))
	must(t, s.Remove(t.Context(), "layer"))
	if n := subvolumes(t, s); n != 0 {
		t.Errorf("%d subvolumes are left", n)
	}
}

// TestCrash: a process that died between subvolume and record, in either order,
// leaves nothing and stops nobody.
func TestCrash(t *testing.T) {
	root := btrfstest.Mount(t)
	s := open(t, root)
	kept := prepare(t, s, "kept", "")
	must(t, os.WriteFile(filepath.Join(kept, "a"), []byte("mine"), 0o644))
	// The next IDs, as if their transactions had never been committed.
	must(t, createSubvolume(s.path("2")))
	must(t, os.WriteFile(filepath.Join(s.path("2"), "stale"), nil, 0o644))
	must(t, createSubvolume(s.path("3")))
	dir := prepare(t, s, "new", "")
	if filepath.Base(dir) != "2" {
		t.Fatalf("the snapshot is in %s, so this test proves nothing", dir)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("a new snapshot has %v, %v", entries, err)
	}
	must(t, s.Close())
	again := open(t, root)
	if n := subvolumes(t, again); n != 2 {
		t.Errorf("%d subvolumes after the restart, want those of two snapshots", n)
	}
	if body, err := os.ReadFile(filepath.Join(kept, "a")); err != nil || string(body) != "mine" {
		t.Errorf("a snapshot that was kept: %q, %v", body, err)
	}
	var keys []string
	must(t, again.Walk(context.Background(), func(_ context.Context, info snapshots.Info) error {
		keys = append(keys, info.Name)
		return nil
	}))
	if len(keys) != 2 {
		t.Errorf("snapshots %v", keys)
	}
}
