package build

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/moby/sys/mountinfo"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"lighter.dev/lighter/agent/image"
	"lighter.dev/lighter/api/v1alpha1"
)

// childCommits, in the environment beside childRoot, makes the agent to be killed
// commit the container of that name instead of waiting for a build.
const childCommits = "LIGHTER_TEST_BUILDER_COMMITS"

// commitForEver makes an image of a container and never comes back.
func commitForEver(b *Builder, container string) {
	_, err := b.Make(context.Background(), "default", "doomed", Commit, func(ctx context.Context) (ocispec.Descriptor, error) {
		target, err := b.cfg.Store.CommitContent(ctx, container, image.Commit{})
		fmt.Println("written", err)
		<-ctx.Done()
		return target, err
	})
	fmt.Println("ended", err)
}

// TestKilledCommit: SIGKILL while a commit reads the container's files, and when all
// is written but has no name yet. The next agent says so in the status, nothing is
// left, and the repeated commit succeeds.
func TestKilledCommit(t *testing.T) {
	// Without a disk behind it, and yet the compressor is busy with it for minutes.
	const endless = 1 << 40
	tests := []struct {
		name string
		size int64
		// until returns when the child, which prints to lines, shall be killed.
		until func(t *testing.T, h *host, lines *bufio.Scanner)
	}{
		{"while it reads", endless, func(t *testing.T, h *host, _ *bufio.Scanner) {
			eventually(t, "a layer is begun", func() bool { return len(list(filepath.Join(h.root, "images", "content", "ingest"))) > 0 })
		}},
		{"when it is written", 1000, func(t *testing.T, _ *host, lines *bufio.Scanner) {
			for lines.Scan() {
				if lines.Text() == "written <nil>" {
					return
				}
				t.Logf("child: %s", lines.Text())
			}
			t.Fatal("the child ended")
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := newHost(t)
			h.base()
			h.image("doomed", nil)
			h.container("c", "work", tt.size)
			before := h.settled()
			h.stop()
			h.commitAndKill(t, "c", tt.until)
			adoptJournal(t, h)
			if err := image.SweepTemporary(h.temporary()); err != nil {
				t.Fatal(err)
			}
			h.start()
			eventually(t, "the commit is reported as cut off", func() bool {
				got := condition(h.api.status("doomed"), v1alpha1.ImageBuilt)
				return got.Reason == v1alpha1.ReasonBuildCancelled && strings.Contains(got.Message, "the commit was cut off")
			})
			if left := h.back(before); !left.within(before) {
				t.Errorf("left over: %+v, want %+v", left, before)
			}
			if mounts := h.overlays(); len(mounts) != 0 {
				t.Errorf("still mounted: %v", mounts)
			}
			h.container("c", "work", 1000)
			res, err := h.builder.Make(context.Background(), "default", "doomed", Commit, func(ctx context.Context) (ocispec.Descriptor, error) {
				return h.store.CommitContent(ctx, "c", image.Commit{})
			})
			if err != nil {
				t.Fatal(err)
			}
			if st := h.api.status("doomed"); st.Digest != res.Digest || condition(st, v1alpha1.ImageBuilt).Reason != v1alpha1.ReasonCommitted {
				t.Errorf("status after the repeated commit: %+v", st)
			}
			if got := len(h.read("doomed", "work")); got != 1000 {
				t.Errorf("the committed file has %d bytes", got)
			}
		})
	}
}

// container gives a container of busybox its file system, with a file of that size.
func (h *host) container(id, name string, size int64) {
	h.t.Helper()
	ctx := context.Background()
	img, err := h.store.Get(ctx, "", "busybox")
	if err != nil {
		h.t.Fatal(err)
	}
	mounts, err := h.store.Prepare(ctx, id, img, false)
	if err != nil {
		h.t.Fatal(err)
	}
	err = mount.WithTempMount(ctx, mounts, func(root string) error {
		path := filepath.Join(root, name)
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			return err
		}
		return os.Truncate(path, size)
	})
	if err != nil {
		h.t.Fatal(err)
	}
}

// commitAndKill runs an agent in a process of its own and kills it in mid-commit.
func (h *host) commitAndKill(t *testing.T, container string, until func(*testing.T, *host, *bufio.Scanner)) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childRoot+"="+h.root, childCommits+"="+container)
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	until(t, h, bufio.NewScanner(pipe))
}

// temporary is where an agent in a process of its own has its temporary mounts.
func (h *host) temporary() string { return filepath.Join(h.root, "tmp") }

// overlays are the mounts, wherever they are, of snapshots of this host.
func (h *host) overlays() (points []string) {
	h.t.Helper()
	all, err := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) {
		return !strings.Contains(m.VFSOptions, h.root) && !strings.HasPrefix(m.Mountpoint, h.root), false
	})
	if err != nil {
		h.t.Fatal(err)
	}
	for _, m := range all {
		points = append(points, m.Mountpoint)
	}
	return points
}
