package build

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/util/imageutil"
	"github.com/moby/sys/mountinfo"

	"lighter.dev/lighter/agent/image"
)

// tally counts everything that a build could leave behind.
type tally struct {
	Blobs, Ingests, Snapshots, Leases, Records, Mounts, Steps int
	// Processes have their root below the host's folder; Containers are those
	// that the runtime knows with a bundle there.
	Processes, Containers int
	// Files are snapshot folders on disk, which the database may not know.
	Files int
}

func (h *host) tally() tally {
	h.t.Helper()
	// BuildKit holds manifests of base images for some minutes after a build.
	imageutil.CancelCacheLeases()
	if err := h.store.GC(context.Background()); err != nil {
		h.t.Fatal(err)
	}
	be := h.store.Backend()
	ctx := namespaces.WithNamespace(context.Background(), image.Namespace)
	var n tally
	must := func(err error) {
		h.t.Helper()
		if err != nil {
			h.t.Fatal(err)
		}
	}
	must(be.Content.Walk(ctx, func(content.Info) error { n.Blobs++; return nil }))
	ingests, err := be.Content.ListStatuses(ctx)
	must(err)
	n.Ingests = len(ingests)
	must(be.Snapshots.Walk(ctx, func(context.Context, snapshots.Info) error { n.Snapshots++; return nil }))
	all, err := be.Leases.List(ctx)
	must(err)
	n.Leases = len(all)
	recs, err := be.Images.List(ctx)
	must(err)
	n.Records = len(recs)
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(h.root))
	must(err)
	n.Mounts = len(mounts)
	n.Files = len(list(filepath.Join(h.root, "images", "snapshots-overlayfs", "snapshots")))
	for _, e := range list(executorRoot(filepath.Join(h.root, "build"))) {
		if e.IsDir() {
			n.Steps++
		}
	}
	n.Processes, n.Containers = h.processes(), h.containers()
	return n
}

// processes counts those whose file system is a build step's.
func (h *host) processes() int {
	roots, err := filepath.Glob("/proc/[0-9]*/mountinfo")
	if err != nil {
		h.t.Fatal(err)
	}
	count := 0
	for _, path := range roots {
		raw, err := os.ReadFile(path)
		if err != nil {
			continue // it ended
		}
		// The first mount of a container is its root: an overlay of our snapshots.
		for _, line := range strings.Split(string(raw), "\n") {
			if fields := strings.Fields(line); len(fields) > 4 && fields[4] == "/" && strings.Contains(line, h.root) {
				count++
				break
			}
		}
	}
	return count
}

// containers counts what the runtime still has a record of.
func (h *host) containers() int {
	command, err := findRuntime("")
	if err != nil {
		h.t.Fatal(err)
	}
	out, err := exec.Command(command, "list", "--format", "json").Output()
	if err != nil {
		return 0 // it never ran
	}
	return strings.Count(string(out), executorRoot(filepath.Join(h.root, "build")))
}

func list(dir string) []os.DirEntry {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	return entries
}

// settled waits until two tallies in a row are equal, and nothing of the build cache
// is in use: BuildKit lets go of some things behind a finished build's back, and the
// next build does not take, but copies, what is in use.
func (h *host) settled() tally {
	h.t.Helper()
	last := h.tally()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); {
		time.Sleep(200 * time.Millisecond)
		next := h.tally()
		if next == last && !h.inUse() {
			return next
		}
		last = next
	}
	return last
}

// inUse tells whether something of the build cache is, if this host has a builder.
func (h *host) inUse() bool {
	h.t.Helper()
	if h.builder == nil || h.builder.engine == nil {
		return false
	}
	records, err := h.builder.engine.worker.DiskUsage(context.Background(), client.DiskUsageInfo{})
	if err != nil {
		h.t.Fatal(err)
	}
	return slices.ContainsFunc(records, func(r *client.UsageInfo) bool { return r.InUse })
}

// within tells whether nothing is there that was not before, and no image is lost.
func (n tally) within(before tally) bool {
	return n.Blobs <= before.Blobs && n.Ingests <= before.Ingests && n.Snapshots <= before.Snapshots && n.Leases <= before.Leases &&
		n.Records == before.Records && n.Mounts <= before.Mounts && n.Steps <= before.Steps &&
		n.Processes <= before.Processes && n.Containers <= before.Containers && n.Files <= before.Files
}

// back counts again until the host has no more than it had before: BuildKit lets go
// of the file system of a failed step some time after it has answered. What it was
// about to let go of when the host seemed settled is gone by then, too.
func (h *host) back(before tally) tally {
	h.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		if now := h.tally(); now.within(before) || time.Now().After(deadline) {
			return now
		}
	}
}

// eventually polls until cond holds.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !cond(); {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
