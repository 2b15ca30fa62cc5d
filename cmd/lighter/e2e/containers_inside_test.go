package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

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
	var list string
	eventually(t, 20*time.Second, "both processes run", func() error {
		if list = d.do("top", "busy"); !strings.Contains(list, "sleep 77") || !strings.Contains(list, "sleep 88") {
			return errOutput(list)
		}
		return nil
	})
	contains(t, "lighter top", list, "PID", "CMD", "1234")
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
	// On a busy machine a second may show less than what the limit leaves, or more.
	eventually(t, 30*time.Second, "what a limit of 0.2 processors leaves", func() error {
		list := d.do("stats", "--no-stream")
		contains(t, "lighter stats", list, "CPU %", "/ 64MiB", "spins", "sleeps")
		for line := range strings.Lines(list) {
			var name string
			var percent float64
			if _, err := fmt.Sscanf(line, "%s %f%%", &name, &percent); err != nil {
				continue
			}
			if name == "spins" && (percent < 5 || percent > 40) || name == "sleeps" && percent > 5 {
				return errOutput(line)
			}
		}
		return nil
	})
	if one := d.do("stats", "--no-stream", "sleeps"); strings.Contains(one, "spins") {
		t.Errorf("not asked for:\n%s", one)
	}
}

func TestDockerExecIt(t *testing.T) {
	t.Parallel()
	d := newDock(t)
	d.do("run", "-d", "--name", "box", "toolbox")
	d.prints("-l and more", "exec", "box", "echo", "-l", "and", "more") // Docker's way
	s := d.terminal("exec", "-it", "box", "sh")
	s.types("echo $((6*7))\r", "42")
	s.types("exit 5\r", "exit 5")
	s.ends(5)
	s = d.terminal("exec", "-it", "box", "--", "sh") // kubectl's
	s.sized()
	s.types("echo $((6*7))\r", "42")
	s.types("exit 4\r", "exit 4")
	s.ends(4)
}

func TestDockerAttach(t *testing.T) {
	t.Parallel()
	d := newDock(t)
	// A shell in the foreground ends the command with its code.
	s := d.terminal("run", "-it", "--rm", "--name", "shell", "toolbox", "sh")
	s.sized()
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
	s.over()
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
