package image

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"
	corev1 "k8s.io/api/core/v1"
)

// withRoot mounts a container's file system and runs fn on it.
func withRoot(t testing.TB, mounts []mount.Mount, fn func(root string)) {
	t.Helper()
	dir := t.TempDir()
	must(t, mount.All(mounts, dir))
	defer func() { must(t, mount.UnmountAll(dir, 0)) }()
	fn(dir)
}

func importRootFS(t testing.TB, s *Store, name string, files map[string]string) Image {
	t.Helper()
	img, err := s.Import(context.Background(), bytes.NewReader(tarOf(t, files)), name, "")
	must(t, err)
	return img
}

// TestSnapshotters is the contract of every storage driver, towards containers.
func TestSnapshotters(t *testing.T) {
	for _, driver := range Snapshotters() {
		t.Run(driver, func(t *testing.T) {
			root := driverRoot(t, driver)
			s := open(t, func(c *Config) { c.Snapshotter, c.Root = driver, root })
			empty := count(t, s)
			img := importRootFS(t, s, "base", map[string]string{"etc/": "", "etc/a": "from the image"})
			t.Run("containers do not see each other", func(t *testing.T) { isolated(t, s, img) })
			t.Run("prepare twice is the same file system", func(t *testing.T) { idempotent(t, s, img) })
			t.Run("read-only", func(t *testing.T) { readOnly(t, s, img) })
			t.Run("deleted files stay deleted", func(t *testing.T) { whiteout(t, s, img) })
			t.Run("name may go while a container runs", func(t *testing.T) { outlivesName(t, s, img) })
			if n := count(t, s); n != empty {
				t.Errorf("left over: %+v, want %+v", n, empty)
			}
		})
	}
}

func isolated(t *testing.T, s *Store, img Image) {
	ctx := context.Background()
	one, err := s.Prepare(ctx, "one", img, false)
	must(t, err)
	two, err := s.Prepare(ctx, "two", img, false)
	must(t, err)
	withRoot(t, one, func(root string) {
		must(t, os.WriteFile(filepath.Join(root, "etc/a"), []byte("changed"), 0o644))
	})
	withRoot(t, two, func(root string) {
		if got, err := os.ReadFile(filepath.Join(root, "etc/a")); err != nil || string(got) != "from the image" {
			t.Errorf("the other container sees %q, %v", got, err)
		}
	})
	ids, err := s.Containers(ctx)
	must(t, err)
	if slices.Sort(ids); !slices.Equal(ids, []string{"one", "two"}) {
		t.Errorf("containers: %v", ids)
	}
	for range 2 { // the second time there is nothing to do
		must(t, s.Remove(ctx, "one"))
		must(t, s.Remove(ctx, "two"))
	}
}

func idempotent(t *testing.T, s *Store, img Image) {
	ctx := context.Background()
	first, err := s.Prepare(ctx, "again", img, false)
	must(t, err)
	withRoot(t, first, func(root string) {
		must(t, os.WriteFile(filepath.Join(root, "new"), nil, 0o644))
	})
	second, err := s.Prepare(ctx, "again", img, false)
	must(t, err)
	withRoot(t, second, func(root string) {
		if _, err := os.Stat(filepath.Join(root, "new")); err != nil {
			t.Error(err)
		}
	})
	must(t, s.Remove(ctx, "again"))
}

func readOnly(t *testing.T, s *Store, img Image) {
	ctx := context.Background()
	mounts, err := s.Prepare(ctx, "ro", img, true)
	must(t, err)
	withRoot(t, mounts, func(root string) {
		if err := os.WriteFile(filepath.Join(root, "new"), nil, 0o644); err == nil {
			t.Error("a read-only file system was written to")
		}
	})
	must(t, s.Remove(ctx, "ro"))
}

func whiteout(t *testing.T, s *Store, img Image) {
	ctx := context.Background()
	mounts, err := s.Prepare(ctx, "rm", img, false)
	must(t, err)
	withRoot(t, mounts, func(root string) { must(t, os.Remove(filepath.Join(root, "etc/a"))) })
	withRoot(t, mounts, func(root string) {
		if _, err := os.Stat(filepath.Join(root, "etc/a")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("deleted file: %v", err)
		}
	})
	must(t, s.Remove(ctx, "rm"))
}

func outlivesName(t *testing.T, s *Store, img Image) {
	ctx := context.Background()
	mounts, err := s.Prepare(ctx, "last", img, false)
	must(t, err)
	must(t, s.Untag(ctx, "base"))
	must(t, s.GC(ctx))
	withRoot(t, mounts, func(root string) {
		if _, err := os.Stat(filepath.Join(root, "etc/a")); err != nil {
			t.Error(err)
		}
	})
	must(t, s.Remove(ctx, "last"))
}

func TestOpenRefuses(t *testing.T) {
	s := open(t, nil)
	_, err := Open(context.Background(), Config{Root: s.cfg.Root})
	if err == nil || !strings.Contains(err.Error(), "in use by another process") {
		t.Errorf("second Open: %v", err)
	}
	_, err = Open(context.Background(), Config{Root: t.TempDir(), Snapshotter: "zfs"})
	if err == nil || !strings.Contains(err.Error(), `storage driver "zfs" is unknown`) {
		t.Errorf("unknown driver: %v", err)
	}
}

func TestNames(t *testing.T) {
	s := open(t, nil)
	ctx := context.Background()
	changed := s.Changed()
	img := importRootFS(t, s, "base:v1", map[string]string{"a": "x"})
	select {
	case <-changed:
	default:
		t.Error("the import was not told")
	}
	must(t, s.Tag(ctx, "base:v1", "reg.example/other"))
	all, err := s.List(ctx)
	must(t, err)
	want := []string{"docker.io/library/base:v1", "reg.example/other:latest",
		"docker.io/library/base@" + img.Target.String(), "reg.example/other@" + img.Target.String()}
	if len(all) != 1 || !slices.Equal(all[0].Names, want) || all[0].Origin != OriginImport || all[0].Size == 0 {
		t.Errorf("list: %+v", all)
	}
	if err := s.Tag(ctx, "none", "x"); !errdefs.IsNotFound(err) {
		t.Errorf("tag of a missing image: %v", err)
	}
	must(t, s.Untag(ctx, "base:v1"))
	if _, err := s.Get(ctx, "default", "base:v1"); !errdefs.IsNotFound(err) {
		t.Errorf("untagged image: %v", err)
	}
	if got, err := s.Get(ctx, "default", "reg.example/other@"+img.Target.String()); err != nil || got.Target != img.Target {
		t.Errorf("by digest: %v, %v", got, err)
	}
	pruned, err := s.Prune(ctx, PruneOptions{})
	must(t, err)
	if len(pruned) != 1 {
		t.Errorf("pruned: %+v", pruned)
	}
	if n := count(t, s); n.Blobs+n.Snapshots+n.Leases+n.Records != 0 {
		t.Errorf("left over: %+v", n)
	}
}

func TestPolicies(t *testing.T) {
	s := open(t, nil)
	ctx := context.Background()
	_, err := s.Ensure(ctx, Request{Namespace: "default", Ref: "none:v1", Policy: corev1.PullNever})
	if !errors.Is(err, ErrNeverPull) || !strings.Contains(err.Error(), "none:v1 is not on this host") {
		t.Errorf("Never: %v", err)
	}
	if _, err = s.Ensure(ctx, Request{Namespace: "default", Ref: "No Such"}); !errors.Is(err, ErrInvalidName) {
		t.Errorf("bad name: %v", err)
	}
	img := importRootFS(t, s, "own", map[string]string{"a": "x"})
	for _, policy := range []corev1.PullPolicy{"", corev1.PullAlways, corev1.PullNever, corev1.PullIfNotPresent} {
		got, err := s.Ensure(ctx, Request{Namespace: "default", Ref: "own", Policy: policy})
		if err != nil || got.Target != img.Target || got.ChainID == "" {
			t.Errorf("policy %q of an imported image: %+v, %v", policy, got, err)
		}
	}
}

// TestImportExport: what one host exports, another imports, in each format.
func TestImportExport(t *testing.T) {
	a, b := open(t, nil), open(t, nil)
	ctx := context.Background()
	img := importRootFS(t, a, "base", map[string]string{"bin/": "", "bin/x": "program"})
	var out bytes.Buffer
	must(t, a.Save(ctx, &out, "", "base"))
	before := count(t, b)
	got, err := b.Import(ctx, bytes.NewReader(out.Bytes()), "copy:v2", "")
	must(t, err)
	if got.Manifest != img.Manifest || got.ChainID != img.ChainID {
		t.Errorf("imported %+v, want %+v", got, img)
	}
	mounts, err := b.Prepare(ctx, "c", got, false)
	must(t, err)
	withRoot(t, mounts, func(root string) {
		if body, err := os.ReadFile(filepath.Join(root, "bin/x")); string(body) != "program" {
			t.Errorf("file: %q, %v", body, err)
		}
	})
	must(t, b.Remove(ctx, "c"))
	must(t, b.Untag(ctx, "copy:v2"))
	for _, bad := range []string{"", "this is not a tar archive, it only looks long enough to be one" + strings.Repeat(" ", 600)} {
		if _, err := b.Import(ctx, strings.NewReader(bad), "bad", ""); err == nil {
			t.Errorf("import of %.10q succeeded", bad)
		}
	}
	if n := count(t, b); n != before {
		t.Errorf("left over: %+v, want %+v", n, before)
	}
	if err := a.Save(ctx, &out, "", "none"); !errdefs.IsNotFound(err) {
		t.Errorf("export of a missing image: %v", err)
	}
}

// TestSweep: what a killed agent leaves is gone after Open.
func TestSweep(t *testing.T) {
	s := open(t, nil)
	empty := count(t, s)
	ctx := s.in(context.Background())
	leased, _, err := s.withLease(ctx, leasePull)
	must(t, err)
	fx := newFixture(t, map[string]string{"a": random(1000)})
	_, err = s.writeJSON(leased, "application/json", fx.layers, nil)
	must(t, err)
	root := s.cfg.Root
	must(t, s.Close())
	again := open(t, func(c *Config) { c.Root = root })
	if n := count(t, again); n != empty {
		t.Errorf("left over: %+v, want %+v", n, empty)
	}
}
