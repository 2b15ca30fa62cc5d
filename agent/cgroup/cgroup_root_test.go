package cgroup

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// inEveryMode runs a test below a root of its own, in the host's mode, and in
// unified mode where v2 is mounted beside v1.
func inEveryMode(t *testing.T, name string, test func(*testing.T, *Tree)) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	host, err := New(fmt.Sprintf("/lighter-%s-test-%d", name, os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	trees := []*Tree{host}
	if host.Mode() == Hybrid {
		trees = append(trees, &Tree{mode: Unified, root: host.root, v2: host.v2})
	}
	for _, tree := range trees {
		t.Run(string(tree.Mode()), func(t *testing.T) { test(t, tree) })
	}
}

// TestLifeRoot makes a cgroup, puts processes into it, kills them and removes it.
func TestLifeRoot(t *testing.T) { inEveryMode(t, "cgroup", live) }

func live(t *testing.T, tree *Tree) {
	pod := tree.Path("pod", "container")
	t.Cleanup(func() {
		if err := tree.Remove(context.WithoutCancel(t.Context()), tree.Path()); err != nil {
			t.Error(err)
		}
	})
	for range 2 { // it is made once
		if err := tree.Create(pod); err != nil {
			t.Fatal(err)
		}
	}
	// A shell and its child: the child has to be found and to die as well.
	shell := exec.Command("sh", "-c", "read go; sleep 1000 & wait")
	stdin, err := shell.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := shell.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = shell.Wait() }()
	t.Cleanup(func() { _ = shell.Process.Kill(); <-ended })
	if err := tree.Join(pod, shell.Process.Pid); err != nil {
		t.Fatal(err)
	}
	// What a process starts before it has joined stays where it was.
	if _, err := io.WriteString(stdin, "\n"); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		pids, err := tree.Processes(tree.Path("pod"))
		if err != nil {
			t.Fatal(err)
		}
		if len(pids) == 2 && slices.Contains(pids, shell.Process.Pid) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("processes: %v, want %d and its child", pids, shell.Process.Pid)
		}
	}
	if err := unix.Rmdir(tree.tracker(pod)); err == nil {
		t.Fatal("a cgroup with processes in it could be removed")
	}
	if err := tree.Kill(pod); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ended:
	case <-time.After(30 * time.Second):
		t.Fatal("the process lives on")
	}
	if err := tree.Remove(t.Context(), tree.Path("pod")); err != nil {
		t.Fatal(err)
	}
	if exists(tree.tracker(tree.Path("pod"))) {
		t.Error("the cgroup is still there")
	}
	for what, err := range map[string]error{
		"remove": tree.Remove(t.Context(), pod), "kill": tree.Kill(pod),
	} {
		if err != nil {
			t.Errorf("%s a cgroup that is not there: %v", what, err)
		}
	}
}
