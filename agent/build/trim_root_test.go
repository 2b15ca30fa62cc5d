package build

import (
	"context"
	"testing"

	"github.com/moby/buildkit/client"
)

// TestTrim: where nothing was built BuildKit is not started; elsewhere its cache
// obeys its rules, and what was built stays.
func TestTrim(t *testing.T) {
	h := newHost(t)
	if err := h.builder.Trim(t.Context()); err != nil {
		t.Fatal(err)
	}
	if h.builder.engine != nil {
		t.Error("BuildKit was started to find that there is no cache")
	}
	h.base()
	h.image("shop", nil)
	dir := folder(t, map[string]string{"Dockerfile": cacheDockerfile, "a.txt": "a", "b.txt": "b"})
	if _, out, err := h.build(t.Context(), "shop", dir); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	before := cacheRecords(t, h)
	// Rules under which nothing may stay, as on a full disk.
	h.builder.engine.worker.WorkerOpt.GCPolicy = []client.PruneInfo{{All: true}}
	if err := h.builder.Trim(t.Context()); err != nil {
		t.Fatal(err)
	}
	if after := cacheRecords(t, h); before == 0 || after >= before {
		t.Errorf("%d records in the cache, %d after it was trimmed", before, after)
	}
	if img, err := h.store.Get(t.Context(), "default", "shop"); err != nil || img.Target == "" {
		t.Errorf("the image that was built: %v", err)
	}
}

func cacheRecords(t *testing.T, h *host) int {
	t.Helper()
	records, err := h.builder.engine.worker.DiskUsage(context.Background(), client.DiskUsageInfo{})
	if err != nil {
		t.Fatal(err)
	}
	return len(records)
}
