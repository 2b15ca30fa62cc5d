package cgroup

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

// TestFreezeRoot stops a process in every mode that the host has, and lets it go on.
func TestFreezeRoot(t *testing.T) { inEveryMode(t, "freeze", freeze) }

func freeze(t *testing.T, tree *Tree) {
	path := tree.Path("pod")
	if err := tree.Create(path); err != nil {
		t.Fatal(err)
	}
	busy := exec.Command("sh", "-c", "while :; do :; done")
	if err := busy.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = tree.Thaw(path)
		_ = busy.Process.Kill()
		_ = busy.Wait()
		if err := tree.Remove(context.WithoutCancel(t.Context()), tree.Path()); err != nil {
			t.Error(err)
		}
	})
	if err := tree.Join(path, busy.Process.Pid); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := tree.Freeze(t.Context(), path); err != nil {
			t.Fatal(err)
		}
		before := cpuTime(t, busy.Process.Pid)
		if err := exec.Command("sh", "-c", "n=0; while [ $n -lt 100000 ]; do n=$((n+1)); done").Run(); err != nil {
			t.Fatal(err)
		}
		if after := cpuTime(t, busy.Process.Pid); after != before {
			t.Errorf("a frozen process used the CPU: %s, then %s", before, after)
		}
		if err := tree.Thaw(path); err != nil {
			t.Fatal(err)
		}
	}
	for before := cpuTime(t, busy.Process.Pid); cpuTime(t, busy.Process.Pid) == before; {
		if err := t.Context().Err(); err != nil {
			t.Fatal("the process does not go on")
		}
	}
	if err := tree.Thaw(tree.Path("none")); err != nil {
		t.Errorf("thaw of a cgroup that is not there: %v", err)
	}
	if err := tree.Freeze(t.Context(), tree.Path("none")); err == nil {
		t.Error("a cgroup that is not there was frozen")
	}
}

// cpuTime is the time a process ran, fields 14 and 15 of /proc/<pid>/stat.
func cpuTime(t *testing.T, pid int) string {
	t.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(raw))
	return fields[13] + " " + fields[14]
}

func TestFreezeMissing(t *testing.T) {
	legacy, _ := tree(t, Legacy)
	if err := legacy.Freeze(t.Context(), "/pod"); !errdefs.IsNotImplemented(err) {
		t.Errorf("without a freezer: %v", err)
	}
	if err := legacy.Thaw("/pod"); err != nil {
		t.Errorf("thaw without a freezer: %v", err)
	}
}
