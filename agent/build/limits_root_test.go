package build

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"lighter.dev/lighter/agent/build/buildclient"
	"lighter.dev/lighter/agent/cgroup"
	"lighter.dev/lighter/api/v1alpha1"
)

// newLimitedHost is a host whose builder has limits.
func newLimitedHost(t *testing.T, limit func(*Config)) *host {
	t.Helper()
	needRoot(t)
	h := &host{t: t, root: t.TempDir(), api: newFakeAPI(), events: &events{}, change: limit}
	h.start()
	t.Cleanup(h.stop)
	h.base()
	return h
}

// TestParallelism: one build at a time means that the second waits, and that it
// can be given up while it waits.
func TestParallelism(t *testing.T) {
	h := newLimitedHost(t, func(c *Config) { c.Parallelism = 1 })
	h.image("one", nil)
	h.image("two", nil)
	dir := folder(t, map[string]string{"Dockerfile": "FROM busybox\nRUN --mount=type=cache,target=/c echo start; sleep 2920; true\n"})
	other := folder(t, map[string]string{"Dockerfile": "FROM busybox\nRUN echo other\n"})
	sig := &signalWriter{want: "start", seen: make(chan struct{})}
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := buildclient.Build(context.Background(), h.client("one", dir, sig)); err != nil {
			t.Error(err)
		}
	})
	<-sig.seen
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	if _, err := buildclient.Build(ctx, h.client("two", other, nil)); err == nil {
		t.Error("a second build ran although one is the limit")
	}
	if c := condition(h.api.status("two"), v1alpha1.ImageBuilding); c.Status == metav1.ConditionTrue {
		t.Errorf("a build that waited says %+v", c)
	}
	h.wakeSleeper("2920")
	if _, out, err := h.build(context.Background(), "two", other); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if condition(h.api.status("one"), v1alpha1.ImageBuilding).Status == metav1.ConditionTrue {
		t.Error("the second build did not wait for the first")
	}
	wg.Wait()
}

// TestStepLimits: RUN steps live in the cgroup that is limited, and one that
// takes too much memory is killed, not the host.
func TestStepLimits(t *testing.T) {
	parent := fmt.Sprint("/lighter-test-build-", os.Getpid())
	tree, err := cgroup.New(parent)
	if err != nil {
		t.Skip(err)
	}
	if !tree.Has("memory") || !tree.Has("cpu") {
		t.Skip("this machine has no memory and cpu controllers")
	}
	t.Cleanup(func() {
		if err := tree.Remove(context.Background(), parent); err != nil {
			t.Error(err)
		}
	})
	h := newLimitedHost(t, func(c *Config) { c.CgroupParent, c.Memory, c.MilliCPUs = parent, 64<<20, 500 })
	h.image("fat", nil)
	_, out, err := h.build(context.Background(), "fat", folder(t, map[string]string{
		"Dockerfile": "FROM busybox\nRUN busybox grep -q lighter-test-build /proc/self/cgroup || test \"$(cat /proc/self/cgroup)\" = 0::/\nRUN x=$(busybox dd if=/dev/zero bs=1M count=200 | busybox tr '\\0' x); echo survived ${#x}\n",
	}))
	if err == nil || strings.Contains(out, "survived 2") {
		t.Errorf("a step took 200 MB of 64: %v\n%s", err, out)
	}
	if quota := readLimit(t, parent); !strings.HasPrefix(quota, "50000") {
		t.Errorf("CPU quota %q, want 50000 of 100000", quota)
	}
	h.stop()
	h.change = func(c *Config) { c.CgroupParent = parent }
	if err := limitSteps(Config{CgroupParent: parent}); err != nil {
		t.Fatal(err)
	}
	if quota := readLimit(t, parent); !strings.HasPrefix(quota, "max") && !strings.HasPrefix(quota, "-1") {
		t.Errorf("CPU quota %q after the limit was taken back", quota)
	}
	h.start()
	if err := limitSteps(Config{Memory: 1}); err == nil {
		t.Error("limits without a cgroup were taken")
	}
}

// readLimit is the CPU quota of a cgroup, under v1 or v2.
func readLimit(t *testing.T, path string) string {
	t.Helper()
	for _, file := range []string{filepath.Join("/sys/fs/cgroup", path, "cpu.max"), filepath.Join("/sys/fs/cgroup/cpu", path, "cpu.cfs_quota_us")} {
		if text, err := os.ReadFile(file); err == nil {
			return strings.TrimSpace(string(text))
		}
	}
	t.Fatal("no CPU quota is to be found")
	return ""
}
