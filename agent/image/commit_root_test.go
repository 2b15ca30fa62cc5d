package image

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	corev1 "k8s.io/api/core/v1"
)

// TestCommit: the new image is the old one with what the container wrote, changed
// and deleted; what a failed commit wrote is gone.
func TestCommit(t *testing.T) {
	for _, driver := range []string{Overlayfs, Native} {
		t.Run(driver, func(t *testing.T) {
			s := open(t, func(c *Config) { c.Snapshotter = driver })
			ctx := context.Background()
			base, err := s.Ensure(ctx, Request{Ref: stock(t, s, dockerFixture(t, map[string]string{"a": "old", "gone": "x", "dir/": "", "dir/b": "kept"}))})
			must(t, err)
			mounts, err := s.Prepare(ctx, "c", base, false)
			must(t, err)
			withRoot(t, mounts, func(root string) {
				must(t, os.WriteFile(filepath.Join(root, "a"), []byte("new"), 0o755))
				must(t, os.WriteFile(filepath.Join(root, "dir/c"), []byte("more"), 0o755))
				must(t, os.Remove(filepath.Join(root, "gone")))
			})
			before := count(t, s)
			leased, release, err := s.Lease(ctx)
			must(t, err)
			_, err = s.CommitContent(leased, "c", Commit{Pause: func(context.Context) (func() error, error) { return nil, errors.New("frozen solid") }})
			if err == nil || !strings.Contains(err.Error(), "frozen solid") {
				t.Errorf("a pause that fails: %v", err)
			}
			paused, resumed := 0, 0
			target, err := s.CommitContent(leased, "c", Commit{
				CreatedBy: "sh -c edit",
				Change:    func(c *ocispec.ImageConfig) { c.Entrypoint = []string{"/a"} },
				Pause: func(context.Context) (func() error, error) {
					paused++
					return func() error { resumed++; return nil }, nil
				},
			})
			must(t, err)
			img, err := s.Promote(leased, "default", []string{"docker.io/library/new:latest"}, target)
			must(t, err)
			release()
			if paused != 1 || resumed != 1 {
				t.Errorf("paused %d times, resumed %d times", paused, resumed)
			}
			if img.Config.Config.Entrypoint[0] != "/a" || img.Config.Config.Cmd[0] != "/run" || len(img.Config.RootFS.DiffIDs) != 2 || len(img.Config.History) != 1 {
				t.Errorf("configuration: %+v", img.Config)
			}
			must(t, s.Remove(ctx, "c"))
			must(t, s.GC(ctx))
			checkCommitted(t, s, img)
			must(t, s.deleteRecords(s.in(ctx), records(t, s, img.Target)))
			after := count(t, s)
			if before.Leases--; after.Leases != before.Leases || after.Blobs != before.Blobs || after.Snapshots != before.Snapshots-1 {
				t.Errorf("left over: %+v, want %+v without the container", after, before)
			}
			if _, err := s.CommitContent(ctx, "c", Commit{}); !errdefs.IsNotFound(err) {
				t.Errorf("commit of a container that is gone: %v", err)
			}
		})
	}
}

// TestCommitLeavesMountPointsOut: what was made to mount something on is not in the
// image, but all that lies beside it is.
func TestCommitLeavesMountPointsOut(t *testing.T) {
	s := open(t, nil)
	ctx := context.Background()
	base, err := s.Ensure(ctx, Request{Ref: stock(t, s, dockerFixture(t, map[string]string{"a": "old", "etc/": "", "etc/kept": "x"}))})
	must(t, err)
	mounts, err := s.Prepare(ctx, "c", base, false)
	must(t, err)
	withRoot(t, mounts, func(root string) {
		for _, dir := range []string{"proc", "sys", "dev/pts", "var/run/secrets/kubernetes.io/serviceaccount", "run/secrets", "volume", "var/lib/written"} {
			must(t, os.MkdirAll(filepath.Join(root, dir), 0o755))
		}
		for _, file := range []string{"etc/hosts", "etc/resolv.conf", "dev/termination-log", "etc/own", "run/lock"} {
			must(t, os.WriteFile(filepath.Join(root, file), nil, 0o600))
		}
	})
	leased, release, err := s.Lease(ctx)
	must(t, err)
	defer release()
	how := ForPod(&corev1.Pod{}, &corev1.Container{TerminationMessagePath: "/dev/termination-log"})
	target, err := s.CommitContent(leased, "c", how)
	must(t, err)
	img, err := s.Promote(leased, "default", []string{"docker.io/library/new:latest"}, target)
	must(t, err)
	mounts, err = s.Prepare(ctx, "d", img, false)
	must(t, err)
	withRoot(t, mounts, func(root string) {
		for name, want := range map[string]bool{
			"a": true, "etc/kept": true, "etc/own": true, "volume": true, "var/lib/written": true, "run/lock": true,
			"proc": false, "sys": false, "dev": false, "etc/hosts": false, "etc/resolv.conf": false, "var/run": false, "run/secrets": false,
		} {
			if _, err := os.Stat(filepath.Join(root, name)); (err == nil) != want {
				t.Errorf("%s: %v, want it: %v", name, err, want)
			}
		}
	})
	must(t, s.Remove(ctx, "d"))
	must(t, s.Remove(ctx, "c"))
}

// checkCommitted runs a container on the image, and on a copy that was saved and loaded.
func checkCommitted(t *testing.T, s *Store, img Image) {
	t.Helper()
	ctx := context.Background()
	var archive bytes.Buffer
	must(t, s.Save(ctx, &archive, "default", "new"))
	other := open(t, nil)
	loaded, err := other.Import(ctx, &archive, "copy", "")
	must(t, err)
	for _, at := range []struct {
		s   *Store
		img Image
	}{{s, img}, {other, loaded}} {
		mounts, err := at.s.Prepare(ctx, "d", at.img, false)
		must(t, err)
		withRoot(t, mounts, func(root string) {
			for name, want := range map[string]string{"a": "new", "dir/b": "kept", "dir/c": "more"} {
				if got, err := os.ReadFile(filepath.Join(root, name)); err != nil || string(got) != want {
					t.Errorf("%s: %q, %v", name, got, err)
				}
			}
			if _, err := os.Stat(filepath.Join(root, "gone")); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the deleted file: %v", err)
			}
		})
		must(t, at.s.Remove(ctx, "d"))
	}
}

func records(t *testing.T, s *Store, dgst digest.Digest) []images.Image {
	t.Helper()
	recs, err := s.images.List(s.in(context.Background()), "target.digest=="+dgst.String())
	must(t, err)
	return recs
}

// TestImportChoice: one image of several is chosen by name, and what is not chosen
// leaves nothing.
func TestImportChoice(t *testing.T) {
	a, b := open(t, nil), open(t, nil)
	ctx := context.Background()
	one := importRootFS(t, a, "one:v1", map[string]string{"a": "1"})
	two := built(t, a, "two", map[string]string{"a": "2"})
	var archive bytes.Buffer
	if err := a.Save(ctx, &archive, "", "one:v1", "two"); !errdefs.IsNotFound(err) || archive.Len() != 0 {
		t.Errorf("a build of a namespace was saved by the host: %v, %d bytes", err, archive.Len())
	}
	must(t, a.Save(ctx, &archive, "default", "one:v1", "two"))
	_, err := b.Import(ctx, bytes.NewReader(archive.Bytes()), "x", "")
	if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "choose one: docker.io/library/one:v1, docker.io/library/two:latest") {
		t.Errorf("no choice: %v", err)
	}
	for choice, want := range map[string]Image{"one:v1": one, "two": two} {
		got, err := b.Import(ctx, bytes.NewReader(archive.Bytes()), "x", choice)
		if err != nil || got.Manifest != want.Manifest {
			t.Errorf("choice %s: %v, %v, want %v", choice, got.Manifest, err, want.Manifest)
		}
		removed, err := b.RemoveImage(ctx, "x", false)
		if err != nil || len(removed.Untagged) != 1 {
			t.Errorf("remove: %+v, %v", removed, err)
		}
	}
	if n := count(t, b); n.Blobs+n.Snapshots+n.Leases+n.Records+n.Ingests != 0 {
		t.Errorf("left over: %+v", n)
	}
}

// TestHostImages: what a namespace and the host see, remove, prune and measure.
func TestHostImages(t *testing.T) {
	builds := fixedBuilds{}
	s := open(t, func(c *Config) {
		c.Builds = builds
		c.Users = func(_ context.Context, ids []string) []User {
			var out []User
			for _, id := range ids {
				out = append(out, User{ID: id, Pod: "team/" + id, Running: id == "runs"})
			}
			return out
		}
	})
	ctx := context.Background()
	run := importRootFS(t, s, "run:v1", map[string]string{"a": random(50_000)})
	idle := importRootFS(t, s, "idle:v1", map[string]string{"a": random(60_000)})
	own := built(t, s, "own", map[string]string{"a": random(70_000)})
	builds["docker.io/library/own:latest"] = own.Target
	_, err := s.Prepare(ctx, "runs", run, false)
	must(t, err)
	names := func(namespace string) (all string) {
		list, err := s.Images(ctx, namespace)
		must(t, err)
		for _, img := range list {
			all += strings.Join(img.Names, " ") + strings.Join(img.Namespaces, " ") + ";"
		}
		return all
	}
	if got := names(""); got != "docker.io/library/idle:v1;docker.io/library/run:v1;" {
		t.Errorf("the host sees %s", got)
	}
	if got := names("default"); got != "docker.io/library/own:latestdefault;docker.io/library/idle:v1;docker.io/library/run:v1;" {
		t.Errorf("the namespace sees %s", got)
	}
	details, err := s.Details(ctx, "", run.Target.Encoded()[:12])
	if err != nil || details.Manifest != run.Manifest.String() || details.Containers != 1 || len(details.Layers) != 1 || details.Created.IsZero() {
		t.Errorf("by the beginning of its digest: %+v, %v", details, err)
	}
	usage, err := s.Usage(ctx)
	must(t, err)
	if row := usage.Rows[0]; row.Total != 3 || row.Active != 1 || row.Reclaimable < 2*130_000 || row.Size-row.Reclaimable < 100_000 || usage.Free == 0 {
		t.Errorf("usage: %+v", usage)
	}
	if _, err := s.RemoveImage(ctx, "own", true); !errdefs.IsConflict(err) || !strings.Contains(err.Error(), "delete that") {
		t.Errorf("removal of what an Image object declares: %v", err)
	}
	if _, err := s.RemoveImage(ctx, "run:v1", false); !errdefs.IsConflict(err) || !strings.Contains(err.Error(), "run by pod team/runs") {
		t.Errorf("removal of what runs: %v", err)
	}
	pruned, err := s.PruneImages(ctx, true, 0)
	must(t, err)
	if len(pruned.Deleted) != 1 || pruned.Deleted[0] != idle.Target.String() || pruned.Reclaimed < 100_000 {
		t.Errorf("pruned %+v", pruned)
	}
	if got := names("default"); got != "docker.io/library/own:latestdefault;docker.io/library/run:v1;" {
		t.Errorf("after the prune: %s", got)
	}
	removed, err := s.RemoveImage(ctx, "run:v1", true)
	if err != nil || len(removed.Untagged) != 1 || len(removed.Deleted) != 0 {
		t.Errorf("forced: %+v, %v", removed, err)
	}
	must(t, s.Remove(ctx, "runs"))
}
