package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// graceful is a process that ends by SIGTERM with its own code.
const graceful = "trap 'echo goodbye; exit 3' TERM; echo hello; while true; do sleep 0.1; done"

func TestDockerRun(t *testing.T) {
	t.Parallel()
	d := newDock(t)
	t.Run("verbs", func(t *testing.T) {
		for name, run := range map[string]func(t *testing.T, d dock){
			"foreground": runForeground, "detached": runDetached, "signals": runSignals, "network": runNetworks, "flags": runFlags,
			"volumes": runVolumes, "limits": runLimits, "refused": runRefused, "restart policies": runPolicies,
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				run(t, dock{t, d.ns})
			})
		}
	})
}

func runForeground(t *testing.T, d dock) {
	r := d.try("run", "--name", "fore", "--rm", "toolbox", "sh", "-c", "echo out; echo err >&2; exit 7")
	if r.code != 7 || r.out != "out\n" || !strings.Contains(r.err, "err\n") {
		t.Errorf("%+v", r)
	}
	d.nothing("fore")
	// However soon it ends, nothing is lost.
	for range 5 {
		d.prints("quick", "run", "--rm", "toolbox", "echo", "quick")
	}
	// Without --rm it stays, with its log.
	d.prints("stays", "run", "--name", "stays", "toolbox", "echo", "stays")
	d.prints("stays", "logs", "stays")
	big := strings.Repeat("0123456789abcdef", 1<<14)
	k := tool{"lighter", shared.binary}
	if r := k.try(t, big, d.args([]string{"run", "--rm", "-i", "toolbox", "cat"})...); r.code != 0 || r.out != big {
		t.Errorf("256 KiB through cat: exit code %d, %d bytes, %s", r.code, len(r.out), r.err)
	}
}

func runDetached(t *testing.T, d dock) {
	d.prints("back", "run", "-d", "--name", "back", "toolbox")
	if d.status("back").State.Running == nil {
		t.Error("it does not run when the command returns")
	}
	madeUp := d.do("run", "-d", "--rm", "toolbox", "sleep", "1")
	if parts := strings.Split(madeUp, "-"); len(parts) != 2 {
		t.Errorf("the name that was made up: %q", madeUp)
	}
	d.nothing(madeUp) // though nobody is with it
	d.fails(125, []string{"run", "-d", "--name", "back", "toolbox"}, "already", "lighter rm back")
}

// runSignals: those to the command are the container's.
func runSignals(t *testing.T, d dock) {
	cmd := tool{"lighter", shared.binary}.command(t, time.Minute, d.args([]string{"run", "--rm", "--name", "signalled", "toolbox", "sh", "-c", graceful})...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, "it says hello", func() error {
		if r := d.try("logs", "signalled"); !strings.Contains(r.out, "hello") {
			return fmt.Errorf("%+v", r)
		}
		return nil
	})
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 3 {
		t.Errorf("exit code %d, want the container's 3", code)
	}
	d.nothing("signalled")
}

func runNetworks(t *testing.T, d dock) {
	d.do("run", "-d", "--name", "web", "--node", "host-2", "-p", "18301:80", "toolbox", "sh", "-c", "echo published > /www/index.html; exec httpd -f -p 80 -h /www")
	address := getPod(t, d.ns, "web").Status.HostIP
	eventually(t, 20*time.Second, "the port answers on another host", func() error {
		if page := strings.TrimSpace(hostExec(t, "host-3", "busybox", "wget", "-qO-", "http://"+address+":18301/")); page != "published" {
			return fmt.Errorf("it says %q", page)
		}
		return nil
	})
	d.fails(125, []string{"run", "-d", "--name", "web2", "--node", "host-2", "-p", "18301:80", "toolbox"}, "free ports")
	d.nothing("web2")
	d.prints("host-3", "run", "--rm", "--network", "host", "--node", "host-3", "toolbox", "hostname")
	d.prints("lo", "run", "--rm", "--network", "none", "toolbox", "sh", "-c", "ls /sys/class/net")
	d.fails(125, []string{"run", "--network", "macvlan", "toolbox"}, "bridge, host or none")
}

func runFlags(t *testing.T, d dock) {
	file := filepath.Join(t.TempDir(), "env")
	if err := os.WriteFile(file, []byte("# these\nFROM_FILE=1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	d.prints("1 a b yes", "run", "--rm", "-e", "FLAG=a b", "--env-file", file, "toolbox", "sh", "-c", "echo $FROM_FILE $FLAG $FROM_IMAGE")
	d.prints("/tmp box 12 34", "run", "--rm", "-w", "/tmp", "-h", "box", "-u", "12:34", "toolbox", "sh", "-c", "echo $(pwd) $(hostname) $(id -u) $(id -g)")
	d.prints("by entrypoint", "run", "--rm", "--entrypoint", "/bin/echo", "toolbox", "by", "entrypoint")
	d.prints("read-only", "run", "--rm", "--read-only", "toolbox", "sh", "-c", "touch /x 2>/dev/null || echo read-only")
	d.prints("CapEff:\t0000000000000000", "run", "--rm", "--cap-drop", "ALL", "toolbox", "grep", "CapEff", "/proc/self/status")
	d.prints("CapEff:\t0000000000002000", "run", "--rm", "--cap-drop", "ALL", "--cap-add", "NET_RAW", "toolbox", "grep", "CapEff", "/proc/self/status")
	d.do("run", "-d", "--name", "labelled", "-l", "colour=blue", "toolbox")
	d.prints("pod/labelled", "get", "pods", "-l", "colour=blue", "-o", "name")
}

func runVolumes(t *testing.T, d dock) {
	folder := "/var/tmp/" + d.ns
	d.do("run", "--rm", "--node", "host-1", "-v", folder+":/data", "toolbox", "sh", "-c", "echo kept > /data/file")
	if got := hostExec(t, "host-1", "cat", folder+"/file"); got != "kept\n" {
		t.Errorf("on the host: %q", got)
	}
	d.prints("kept, cannot write", "run", "--rm", "--node", "host-1", "-v", folder+":/data:ro", "toolbox", "sh", "-c",
		"echo $(cat /data/file), $(touch /data/x 2>/dev/null || echo cannot write)")
	d.do("run", "--rm", "--node", "host-1", "-v", "store:/data", "toolbox", "sh", "-c", "echo named > /data/file")
	d.prints("named", "run", "--rm", "--node", "host-1", "-v", "store:/data", "toolbox", "cat", "/data/file")
	d.fails(125, []string{"run", "-v", "store:/data", "toolbox"}, "--node")
	hostExec(t, "host-1", "rm", "-r", folder, "/var/lib/lighter/named-volumes/"+d.ns)
}

func runLimits(t *testing.T, d dock) {
	d.fails(137, []string{"run", "--name", "greedy", "-m", "16m", "--cpus", "0.5", "toolbox", "tail", "/dev/zero"})
	if end := d.status("greedy").State.Terminated; end == nil || end.Reason != "OOMKilled" {
		t.Errorf("it ended as %+v", end)
	}
	if cpu := getPod(t, d.ns, "greedy").Spec.Containers[0].Resources.Limits.Cpu(); cpu.MilliValue() != 500 {
		t.Errorf("its limit of processors is %s", cpu)
	}
}

// runRefused: what cannot run says why, and leaves nothing.
func runRefused(t *testing.T, d dock) {
	for _, test := range []struct {
		name  string
		code  int
		flags []string
		want  string
	}{
		{"nocommand", 127, []string{"toolbox", "no-such-command"}, "no-such-command"},
		{"noexec", 126, []string{"toolbox", "/etc/passwd"}, ""},
		{"noimage", 125, []string{"--pull", "never", "nobody/knows:it", "true"}, "ErrImageNeverPull"},
		{"noroom", 125, []string{"-m", "900g", "toolbox"}, "Insufficient memory"},
		{"nohost", 125, []string{"--node", "host-9", "toolbox"}, "no host host-9"},
		{"noinit", 125, []string{"--init", "toolbox"}, "--init is not supported"},
	} {
		for _, detached := range []string{"-d=true", "-d=false"} {
			d.fails(test.code, append([]string{"run", detached, "--name", test.name}, test.flags...), test.want)
			d.nothing(test.name)
		}
	}
}

func runPolicies(t *testing.T, d dock) {
	d.do("run", "-d", "--name", "fails", "--restart", "on-failure:1", "toolbox", "sh", "-c", "echo again; exit 4")
	until(t, d.ns, "fails", 30*time.Second, "has used its retry", func(pod *corev1.Pod) bool {
		s := pod.Status.ContainerStatuses
		return len(s) == 1 && s[0].RestartCount == 1 && s[0].State.Terminated != nil
	})
	d.prints("again\nagain", "logs", "fails")
	d.do("run", "-d", "--name", "always", "--restart", "always", "toolbox", "sh", "-c", "test -f /once && exec sleep 1d; touch /once")
	until(t, d.ns, "always", 30*time.Second, "runs again", func(pod *corev1.Pod) bool {
		s := pod.Status.ContainerStatuses
		return len(s) == 1 && s[0].RestartCount == 1 && s[0].State.Running != nil
	})
	d.do("stop", "-t", "0", "always")
	if end := d.status("always").State.Terminated; end == nil || end.Reason != "Stopped" {
		t.Errorf("stopped by hand, it is %+v", d.status("always").State)
	}
}

func TestDockerStopKeepsFiles(t *testing.T) {
	t.Parallel()
	d := newDock(t)
	d.do("run", "-d", "--name", "keeps", "toolbox", "sh", "-c", graceful)
	d.in("keeps", "echo written > /file")
	before := getPod(t, d.ns, "keeps")
	start := time.Now()
	d.prints("keeps", "stop", "keeps")
	if took := time.Since(start); took > 8*time.Second {
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
	if took := time.Since(start); took < 1900*time.Millisecond || took > 8*time.Second {
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
	eventually(t, 30*time.Second, "the Deployment's pods are Ready", func() error {
		if n := len(readyPods(t, d.ns, "app=web")); n != 2 {
			return fmt.Errorf("%d are", n)
		}
		return nil
	})
	owned := readyPods(t, d.ns, "app=web")[0].Name
	d.fails(1, []string{"stop", owned}, "belongs to Deployment web", "lighter scale")
}

func TestDockerRestart(t *testing.T) {
	t.Parallel()
	d := newDock(t)
	d.do("run", "-d", "--name", "again", "toolbox", "sh", "-c", graceful)
	d.in("again", "echo written > /file")
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
	// By its other name, which the pod does not have.
	d.do("run", "-d", "--name", "c", "toolbox")
	d.do("rename", "c", "renamed")
	contains(t, "lighter ps", d.do("ps"), "renamed")
	d.do("stop", "-t", "0", "renamed")
	d.prints("renamed", "rm", "renamed")
	d.nothing("")
}

func TestDockerKill(t *testing.T) {
	t.Parallel()
	d := newDock(t)
	d.do("run", "-d", "--name", "k", "--restart", "always", "toolbox", "sh", "-c", "trap 'echo got it' USR1; trap 'exit 3' TERM; echo ready; while true; do sleep 0.1; done")
	eventually(t, 20*time.Second, "it is ready", func() error { return says(d, "k", "ready") })
	d.prints("k", "kill", "-s", "USR1", "k")
	eventually(t, 20*time.Second, "the signal has arrived", func() error { return says(d, "k", "got it") })
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
	eventually(t, 20*time.Second, "it is ready", func() error { return says(d, "k", "ready\nready") })
	d.do("kill", "-s", "SIGTERM", "k")
	d.prints("3", "wait", "k")
	d.fails(1, []string{"kill", "-s", "NOSUCH", "k"}, "NOSUCH")
}

// says looks for a text in a container's log.
func says(d dock, name, text string) error {
	if log := d.do("logs", name); !strings.Contains(strings.ReplaceAll(log, "got it\n", ""), text) && !strings.Contains(log, text) {
		return fmt.Errorf("its log is %q", log)
	}
	return nil
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
	eventually(t, 20*time.Second, "it says hello", func() error { return says(d, "talks", "hello") })
	d.do("restart", "talks")
	eventually(t, 20*time.Second, "its log has both lives", func() error { return says(d, "talks", "hello\ngoodbye\nhello") })
	d.do("stop", "talks")
	d.prints("hello\ngoodbye\nhello\ngoodbye", "logs", "talks")
	d.prints("goodbye", "logs", "--tail=1", "talks")
}

func TestDockerDiff(t *testing.T) {
	t.Parallel()
	d := newDock(t)
	d.do("run", "-d", "--name", "changes", "toolbox", "sh", "-c", "mkdir /new; echo x > /new/file; echo y >> /etc/passwd; rm /bin/fetch; exec sleep 1d")
	want := "C /bin\nD /bin/fetch\nC /etc\nC /etc/passwd\nA /new\nA /new/file"
	eventually(t, 20*time.Second, "the changes are shown", func() error {
		if got := d.do("diff", "changes"); got != want {
			return fmt.Errorf("%q", got)
		}
		return nil
	})
	d.do("stop", "-t", "0", "changes")
	d.prints(want, "diff", "changes")
	d.do("run", "-d", "--name", "none", "toolbox")
	d.prints("", "diff", "none")
	// With -f it is kubectl's.
	manifest := filepath.Join(t.TempDir(), "new.yaml")
	if err := os.WriteFile(manifest, []byte("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: not-there-yet}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	d.fails(1, []string{"diff", "-f", manifest}, "not-there-yet")
}

func TestDockerTop(t *testing.T) {
	t.Parallel()
	d := newDock(t)
	d.do("run", "-d", "--name", "busy", "-u", "1234", "toolbox", "sh", "-c", "sleep 77 & exec sleep 88")
	list := d.do("top", "busy")
	contains(t, "lighter top", list, "PID", "CMD", "1234", "sleep 77", "sleep 88")
	if lines := strings.Split(list, "\n"); len(lines) != 3 {
		t.Errorf("%d lines:\n%s", len(lines), list)
	}
	d.do("stop", "-t", "0", "busy")
	d.fails(1, []string{"top", "busy"}, "exited")
}

func TestDockerStats(t *testing.T) {
	t.Parallel()
	d := newDock(t)
	d.do("run", "-d", "--name", "spins", "-m", "64m", "--cpus", "0.2", "toolbox", "sh", "-c", "while true; do true; done")
	d.do("run", "-d", "--name", "sleeps", "toolbox")
	list := d.do("stats", "--no-stream")
	contains(t, "lighter stats", list, "CPU %", "/ 64MiB", "spins", "sleeps")
	for line := range strings.Lines(list) {
		var name string
		var percent float64
		if _, err := fmt.Sscanf(line, "%s %f%%", &name, &percent); err != nil {
			continue
		}
		if name == "spins" && (percent < 5 || percent > 40) || name == "sleeps" && percent > 5 {
			t.Errorf("with a limit of 0.2 processors: %s", line)
		}
	}
	if one := d.do("stats", "--no-stream", "sleeps"); strings.Contains(one, "spins") {
		t.Errorf("not asked for:\n%s", one)
	}
}

func TestDockerExecIt(t *testing.T) {
	t.Parallel()
	d := newDock(t)
	d.do("run", "-d", "--name", "box", "toolbox")
	s := d.terminal("exec", "-it", "box", "--", "sh")
	s.types("stty size\r", "30 100")
	s.types("echo $((6*7))\r", "42")
	s.types("exit 4\r", "exit 4")
	s.ends(4)
}

func TestDockerAttach(t *testing.T) {
	t.Parallel()
	d := newDock(t)
	// A shell in the foreground ends the command with its code.
	s := d.terminal("run", "-it", "--rm", "--name", "shell", "toolbox", "sh")
	s.types("stty size\r", "30 100")
	s.types("test -t 0 && echo $((6*7))\r", "42")
	s.types("exit 9\r", "exit 9")
	s.ends(9)
	d.nothing("shell")
	// One that is left runs on, and one can come back.
	s = d.terminal("run", "-it", "--name", "left", "toolbox", "sh")
	s.types("", "/ # ") // before that keys are the terminal's, not the container's
	s.types("kept=yes\r", "kept=yes")
	s.types("\x10\x11", "")
	s.ends(0)
	if d.status("left").State.Running == nil {
		t.Fatal("the detach keys have stopped it")
	}
	s = d.terminal("attach", "-it", "left")
	s.types("echo $kept$((6*7))\r", "yes42")
	s.types("exit 2\r", "exit 2")
	<-s.done
	d.prints("2", "wait", "left")
	s = d.terminal("start", "-ai", "left")
	s.types("echo $((6*7))\r", "42")
	s.types("exit 1\r", "exit 1")
	s.ends(1)
}

func TestDockerRunWithAnotherEntrypointAfterCommit(t *testing.T) {
	t.Parallel()
	d := newDock(t)
	d.try("run", "--name", "fails", "-e", "SETTING=wrong", "toolbox", "sh", "-c", "echo evidence > /evidence; exit 1")
	d.try("start", "-a", "fails") // its files are those of its first attempt
	d.do("commit", "fails", "looked-into:v1")
	d.prints("evidence wrong", "run", "--rm", "--entrypoint", "/bin/sh", "looked-into:v1", "-c", "echo $(cat /evidence) $SETTING")
	d.fails(1, []string{"run", "--rm", "looked-into:v1"}) // it does what it did
}

// TestDebugFailed: of a pod that ended, and of a container of "lighter run".
func TestDebugFailed(t *testing.T) {
	t.Parallel()
	d := newDock(t)
	create(t, d.ns, pod("job", "echo evidence > /evidence; exit 1", never))
	until(t, d.ns, "job", 30*time.Second, "has failed", func(pod *corev1.Pod) bool { return pod.Status.Phase == corev1.PodFailed })
	d.try("run", "--name", "fails", "toolbox", "sh", "-c", "echo evidence > /evidence; exit 1")
	k := tool{"lighter", shared.binary}
	for _, name := range []string{"job", "fails"} {
		r := k.try(t, "cat /evidence; exit 4\n", d.args([]string{"debug", "--from-failed", name})...)
		if r.code != 4 || r.out != "evidence\n" {
			t.Errorf("%s: %+v", name, r)
		}
	}
	s := d.terminal("debug", "--from-failed", "job")
	s.types("", "# ")
	s.types("cat /evidence\r", "evidence")
	s.types("exit 3\r", "exit 3")
	s.ends(3)
	if images := d.do("get", "images", "-o", "name"); images != "image.lighter.dev/toolbox" {
		t.Errorf("left behind: %s", images)
	}
	d.do("run", "-d", "--name", "well", "toolbox")
	d.fails(125, []string{"debug", "--from-failed", "well"}, "lighter exec -it well")
	d.fails(2, []string{"debug"}, "--from-failed", "lighter kubectl debug")
}
