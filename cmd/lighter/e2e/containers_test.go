package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// graceful is a process that ends by SIGTERM with its own code, from when on it has
// said hello.
const graceful = "trap 'echo goodbye; exit 3' TERM; echo hello; while true; do sleep 0.1; done"

func TestDockerStopKeepsFiles(t *testing.T) {
	t.Parallel()
	d := newDock(t)
	d.do("run", "-d", "--name", "keeps", "toolbox", "sh", "-c", graceful)
	d.in("keeps", "echo written > /file")
	d.says("keeps", "hello")
	before := getPod(t, d.ns, "keeps")
	start := time.Now()
	d.prints("keeps", "stop", "-t", "200", "keeps")
	if took := time.Since(start); took > 100*time.Second {
		t.Errorf("a container that obeys took %s", took)
	}
	end := d.status("keeps").State.Terminated
	if end == nil || end.ExitCode != 3 || end.Reason != "Stopped" {
		t.Fatalf("it ended as %+v", end)
	}
	contains(t, "lighter get pods", d.do("get", "pods", "keeps"), "0/1", "Stopped")
	d.prints("keeps", "stop", "keeps") // once more is well
	d.prints("keeps", "start", "keeps")
	d.prints("keeps", "start", "keeps")
	if got := d.in("keeps", "cat /file"); got != "written" {
		t.Errorf("the file after stop and start: %q", got)
	}
	after := getPod(t, d.ns, "keeps")
	if after.UID != before.UID || after.Spec.NodeName != before.Spec.NodeName || after.Status.PodIP != before.Status.PodIP || after.Status.Phase != corev1.PodRunning {
		t.Errorf("its place was %s on %s, now %s on %s", before.Status.PodIP, before.Spec.NodeName, after.Status.PodIP, after.Spec.NodeName)
	}
	// Who ignores the stop signal is killed when the time is over.
	d.do("run", "-d", "--name", "stubborn", "toolbox", "sh", "-c", "trap '' TERM; while true; do sleep 0.1; done")
	start = time.Now()
	d.do("stop", "-t", "2", "stubborn")
	if took := time.Since(start); took < 1900*time.Millisecond || took > slack*30*time.Second {
		t.Errorf("with -t 2 it took %s", took)
	}
	d.prints("137", "wait", "stubborn")
}

// TestDockerStopSurvivesAgent is not parallel: it kills agents.
func TestDockerStopSurvivesAgent(t *testing.T) {
	d := newDock(t)
	mend(t)
	d.do("run", "-d", "--name", "keeps", "--node", "host-2", "toolbox", "sh", "-c", graceful)
	d.do("run", "-d", "--name", "always", "--restart", "always", "--node", "host-2", "toolbox", "sh", "-c", graceful)
	d.do("run", "-d", "--name", "unless", "--restart", "unless-stopped", "--node", "host-2", "toolbox", "sh", "-c", graceful)
	for _, name := range []string{"keeps", "always", "unless"} {
		d.in(name, "echo written > /file")
		d.says(name, "hello")
		d.do("stop", name)
	}
	onCluster(t, "kill", "--daemon", "host-2")
	onCluster(t, "start", "host-2")
	nodesReady(t, 20*time.Second, "host-2")
	until(t, d.ns, "always", 20*time.Second, "runs, as its agent was started", isReady)
	for _, name := range []string{"keeps", "unless"} {
		if d.status(name).State.Terminated == nil {
			t.Errorf("%s was stopped and is %+v", name, d.status(name).State)
		}
		d.do("start", name)
	}
	for _, name := range []string{"keeps", "always", "unless"} {
		if got := d.in(name, "cat /file"); got != "written" {
			t.Errorf("%s: the file says %q", name, got)
		}
	}
	// A host that loses its power comes back with the files, though its other pods
	// were given up meanwhile.
	create(t, d.ns, pod("ordinary", "sleep 1d", "nodeName: host-2"))
	untilReady(t, d.ns, "ordinary")
	onCluster(t, "kill", "host-2")
	until(t, d.ns, "ordinary", 30*time.Second, "is given up", func(pod *corev1.Pod) bool { return pod.DeletionTimestamp != nil })
	onCluster(t, "start", "host-2")
	nodesReady(t, 30*time.Second, "host-2")
	eventually(t, 30*time.Second, "it runs again, on its files", func() error {
		if got, err := inPod(t, d.ns, "unless", "cat /file"); err != nil || got != "written" {
			return fmt.Errorf("%q, %w", got, err)
		}
		return nil
	})
}

func TestDockerStart(t *testing.T) {
	t.Parallel()
	d := newDock(t)
	d.fails(5, []string{"run", "--name", "counts", "toolbox", "sh", "-c", "echo x >> /runs; wc -l < /runs; exit 5"}, "1")
	for want := 2; want < 4; want++ {
		if r := d.try("start", "-a", "counts"); r.code != 5 || strings.TrimSpace(r.out) != fmt.Sprint(want) {
			t.Errorf("run %d: %+v", want, r)
		}
	}
	d.prints("counts", "start", "counts")
	d.prints("5", "wait", "counts")
	d.prints("1\n2\n3\n4", "logs", "counts")
	d.fails(1, []string{"start", "nobody"}, `no container "nobody"`)
	create(t, d.ns, fmt.Sprintf(web, "1"))
	var owned []corev1.Pod
	eventually(t, 30*time.Second, "the Deployment's pods are Ready", func() error {
		if owned = readyPods(t, d.ns, "app=web"); len(owned) != 2 {
			return fmt.Errorf("%d are", len(owned))
		}
		return nil
	})
	d.fails(1, []string{"stop", owned[0].Name}, "belongs to Deployment web", "lighter scale")
}

func TestDockerRestart(t *testing.T) {
	t.Parallel()
	d := newDock(t)
	d.do("run", "-d", "--name", "again", "toolbox", "sh", "-c", graceful)
	d.in("again", "echo written > /file")
	d.says("again", "hello")
	before := d.status("again")
	d.prints("again", "restart", "again")
	after := d.status("again")
	if after.ContainerID == before.ContainerID || after.State.Running == nil || after.RestartCount != 1 {
		t.Errorf("before %+v, after %+v", before, after)
	}
	if got := d.in("again", "cat /file"); got != "written" {
		t.Errorf("the file says %q", got)
	}
	d.do("stop", "again")
	d.do("restart", "again") // starts what does not run
	if d.status("again").State.Running == nil {
		t.Error("it does not run")
	}
}

func TestDockerPs(t *testing.T) {
	t.Parallel()
	d := newDock(t)
	d.do("run", "-d", "--name", "up", "-p", "127.0.0.1:18302:80", "toolbox", "sleep", "1d")
	d.try("run", "--name", "over", "toolbox", "sh", "-c", "exit 9")
	list := d.do("ps")
	contains(t, "lighter ps", list, "CONTAINER", "up", "toolbox", `"sleep 1d"`, "Up ", "127.0.0.1:18302->80/tcp", getPod(t, d.ns, "up").Spec.NodeName)
	if strings.Contains(list, "over") {
		t.Errorf("it ended and is listed:\n%s", list)
	}
	contains(t, "lighter ps -a", d.do("ps", "-a"), "Exited (9) ", "Up ")
	names := strings.Fields(d.do("ps", "-aq"))
	slices.Sort(names)
	if !slices.Equal(names, []string{"over", "up"}) {
		t.Errorf("ps -aq: %v", names)
	}
	var row struct{ Names, State, Image string }
	if err := json.Unmarshal([]byte(d.do("ps", "--format", "json")), &row); err != nil || row.Names != "up" || row.State != "running" {
		t.Errorf("%+v, %v", row, err)
	}
	contains(t, "lighter ps -A", d.do("ps", "-A"), "NAMESPACE", d.ns)
}

func TestDockerRm(t *testing.T) {
	t.Parallel()
	d := newDock(t)
	d.do("run", "-d", "--name", "a", "toolbox")
	d.do("run", "--name", "b", "toolbox", "true")
	d.fails(1, []string{"rm", "a", "b"}, "container a is running", "lighter stop a")
	d.nothing("b")
	d.prints("a", "rm", "-f", "a")
	d.nothing("a")
	d.fails(1, []string{"rm", "a"}, `no container "a"`)
	d.nothing("")
}

// TestDockerRename: every verb knows a container by its new name, which the pod does
// not have, and by the pod's.
func TestDockerRename(t *testing.T) {
	t.Parallel()
	d := newDock(t)
	d.do("run", "-d", "--name", "c", "toolbox", "sh", "-c", "echo hello; exec sleep 1000")
	d.do("rename", "c", "renamed")
	contains(t, "lighter ps", d.do("ps"), "renamed")
	for _, name := range []string{"c", "renamed"} {
		eventually(t, 20*time.Second, "its log", func() error {
			if out := d.do("logs", name); out != "hello" {
				return errOutput(out)
			}
			return nil
		})
		if got := d.in(name, "echo inside"); got != "inside" {
			t.Errorf("exec in %s: %q", name, got)
		}
		file := filepath.Join(t.TempDir(), "hosts")
		d.do("cp", name+":/etc/hostname", file)
		if raw, err := os.ReadFile(file); err != nil || len(raw) == 0 {
			t.Errorf("cp from %s: %q, %v", name, raw, err)
		}
	}
	d.fails(1, []string{"logs", "another"}, "another", "not found")
	d.do("stop", "-t", "0", "renamed")
	d.prints("renamed", "rm", "renamed")
	d.nothing("")
}

func TestDockerKill(t *testing.T) {
	t.Parallel()
	d := newDock(t)
	d.do("run", "-d", "--name", "k", "--restart", "always", "toolbox", "sh", "-c", "trap 'echo got it' USR1; trap 'exit 3' TERM; echo ready; while true; do sleep 0.1; done")
	d.says("k", "ready")
	d.prints("k", "kill", "-s", "USR1", "k")
	d.says("k", "got it")
	if d.status("k").State.Running == nil {
		t.Error("USR1 stopped it")
	}
	d.prints("k", "kill", "k")
	d.prints("137", "wait", "k")
	if reason := d.status("k").State.Terminated.Reason; reason != "Stopped" {
		t.Errorf("its reason is %s", reason)
	}
	d.fails(1, []string{"kill", "k"}, "not running")
	d.do("start", "k")
	d.says("k", "ready\nready")
	d.do("kill", "-s", "SIGTERM", "k")
	d.prints("3", "wait", "k")
	d.fails(1, []string{"kill", "-s", "NOSUCH", "k"}, "NOSUCH")
}

func TestDockerWait(t *testing.T) {
	t.Parallel()
	d := newDock(t)
	d.do("run", "-d", "--name", "a", "toolbox", "sh", "-c", "sleep 2; exit 6")
	d.do("run", "-d", "--name", "b", "toolbox", "true")
	d.prints("6\n0", "wait", "a", "b")
	// With --for it is kubectl's.
	contains(t, "lighter wait --for", d.do("wait", "--for=condition=Initialized", "pod/a"), "condition met")
}

func TestDockerLogs(t *testing.T) {
	t.Parallel()
	d := newDock(t)
	d.do("run", "-d", "--name", "talks", "toolbox", "sh", "-c", graceful)
	d.says("talks", "hello")
	d.do("restart", "talks")
	d.says("talks", "hello\ngoodbye\nhello")
	d.do("stop", "talks")
	d.prints("hello\ngoodbye\nhello\ngoodbye", "logs", "talks")
	d.prints("goodbye", "logs", "--tail=1", "talks")
}
