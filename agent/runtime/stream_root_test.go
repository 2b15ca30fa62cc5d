package runtime

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	corev1 "k8s.io/api/core/v1"
)

// syncBuffer may be read while it is written.
type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func TestExec(t *testing.T) {
	runtimes(t, func(t *testing.T, h *host) {
		spec := h.spec("sleep", "1000")
		spec.Container.SecurityContext = &corev1.SecurityContext{RunAsUser: ptr(int64(101))}
		id := h.start(spec)
		stdout, stderr, code, err := h.engine.ExecSync(t.Context(), id, []string{"sh", "-c", "echo $BOTH; id -u; echo bad >&2; exit 5"}, time.Minute)
		if string(stdout) != "pod\n101\n" || string(stderr) != "bad\n" || code != 5 || err != nil {
			t.Errorf("%q %q %d %v", stdout, stderr, code, err)
		}
		var out bytes.Buffer
		code, err = h.engine.Exec(t.Context(), id, ExecOptions{Command: []string{"cat"}, Stdin: strings.NewReader("through stdin"), Stdout: &out})
		if out.String() != "through stdin" || code != 0 || err != nil {
			t.Errorf("%q %d %v", out.String(), code, err)
		}
		var failed *Error
		_, _, _, err = h.engine.ExecSync(t.Context(), id, []string{"nothing-here"}, time.Minute)
		if !errors.As(err, &failed) || !strings.Contains(failed.Message, "nothing-here") || !strings.Contains(failed.Message, "not found in $PATH") {
			t.Errorf("unknown command: %v", err)
		}
		if _, _, _, err = h.engine.ExecSync(t.Context(), "nobody", []string{"true"}, time.Minute); !errdefs.IsNotFound(err) {
			t.Errorf("unknown container: %v", err)
		}
	})
}

func TestExecIsCancelled(t *testing.T) {
	h := newHost(t, "runc")
	spec := h.spec("sleep", "1000")
	id := h.start(spec)
	// Some of these end the runtime before it has made the process, or while.
	for _, ms := range []int{5, 10, 20, 30, 40, 50, 60, 80, 100, 500} {
		timeout := time.Duration(ms) * time.Millisecond
		_, _, _, err := h.engine.ExecSync(t.Context(), id, []string{"sh", "-c", "sleep 999; true"}, timeout)
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("after %v: %v", timeout, err)
		}
	}
	poll(t, "the command to be gone", func() bool {
		pids, err := h.engine.cgroups.Processes(h.engine.containerCgroup(&spec))
		// Zombies stay: the container's first process does not reap them.
		pids = slices.DeleteFunc(pids, func(pid int) bool { return startTime(pid) == 0 })
		return err == nil && len(pids) == 1
	})
}

func TestExecWithTerminal(t *testing.T) {
	runtimes(t, func(t *testing.T, h *host) {
		id := h.start(h.spec("sleep", "1000"))
		stdin, keyboard := io.Pipe()
		sizes := make(chan TerminalSize, 1)
		sizes <- TerminalSize{Width: 100, Height: 30}
		var screen syncBuffer
		result := make(chan error, 1)
		go func() {
			code, err := h.engine.Exec(t.Context(), id, ExecOptions{Command: []string{"sh"}, TTY: true, Stdin: stdin, Stdout: &screen, Resize: sizes})
			if code != 4 {
				err = errors.Join(err, errors.New("wrong exit code"))
			}
			result <- err
		}()
		// runc copies the size when the process runs already: it may be asked too early.
		comesTo := func(size string) {
			t.Helper()
			poll(t, "the size "+size, func() bool {
				_, _ = io.WriteString(keyboard, "stty size\n")
				time.Sleep(50 * time.Millisecond)
				return strings.Contains(screen.String(), size)
			})
		}
		poll(t, "the prompt", func() bool { return strings.Contains(screen.String(), "#") })
		comesTo("30 100")
		sizes <- TerminalSize{Width: 132, Height: 43}
		comesTo("43 132")
		_, _ = io.WriteString(keyboard, "exit 4\n")
		if err := <-result; err != nil {
			t.Errorf("%v; screen %q", err, screen.String())
		}
	})
}

// TestExecWithTerminalResizedAtStart: a size that comes at any moment of the start counts.
func TestExecWithTerminalResizedAtStart(t *testing.T) {
	runtimes(t, func(t *testing.T, h *host) {
		id := h.start(h.spec("sleep", "1000"))
		for late := range 60 {
			stdin, keyboard := io.Pipe()
			sizes := make(chan TerminalSize)
			go func() {
				sizes <- TerminalSize{Width: 80, Height: 24}
				<-time.After(time.Duration(late) * 400 * time.Microsecond) // a moment, not a wait for something
				sizes <- TerminalSize{Width: 91, Height: 27}
			}()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			code, err := h.engine.Exec(ctx, id, ExecOptions{
				Command: []string{"sh", "-c", "while [ \"$(stty size 2>/dev/null)\" != '27 91' ]; do sleep 0.02; done"},
				TTY:     true, Stdin: stdin, Resize: sizes,
			})
			cancel()
			_ = keyboard.Close()
			if code != 0 || err != nil {
				t.Fatalf("sized after %d us: exit code %d, %v", 400*late, code, err)
			}
		}
	})
}

func TestAttach(t *testing.T) {
	runtimes(t, func(t *testing.T, h *host) {
		spec := h.spec("sh", "-c", "while read line; do echo got $line; echo err $line >&2; done; echo end")
		spec.Container.Stdin, spec.Container.StdinOnce = true, true
		id := h.start(spec)
		var stdout, stderr syncBuffer
		err := h.engine.Attach(t.Context(), id, AttachOptions{Stdin: strings.NewReader("one\ntwo\n"), Stdout: &stdout, Stderr: &stderr})
		if err != nil {
			t.Fatal(err)
		}
		if stdout.String() != "got one\ngot two\nend\n" || stderr.String() != "err one\nerr two\n" {
			t.Errorf("stdout %q, stderr %q", stdout.String(), stderr.String())
		}
		if st := h.waitFor(id, StateExited); st.ExitCode != 0 {
			t.Errorf("exit code %d", st.ExitCode)
		}
	})
}

func TestAttachToTerminal(t *testing.T) {
	h := newHost(t, "runc")
	spec := h.spec("sh")
	spec.Container.Stdin, spec.Container.TTY = true, true
	id := h.start(spec)
	ctx, cancel := context.WithCancel(t.Context())
	stdin, keyboard := io.Pipe()
	sizes := make(chan TerminalSize, 1)
	var screen syncBuffer
	result := make(chan error, 1)
	go func() {
		result <- h.engine.Attach(ctx, id, AttachOptions{Stdin: stdin, Stdout: &screen, Resize: sizes})
	}()
	typed := make(chan struct{})
	go func() {
		defer close(typed)
		_, _ = io.WriteString(keyboard, "stty size\n")
	}()
	select {
	case <-typed:
		t.Error("keys arrive before the terminal has its size")
	case <-time.After(sizeGrace / 10): // keys that wait, not a wait for something
	}
	sizes <- TerminalSize{Width: 99, Height: 33}
	poll(t, "the size at the start", func() bool { return strings.Contains(screen.String(), "33 99") })
	<-typed
	sizes <- TerminalSize{Width: 88, Height: 44}
	poll(t, "the new size", func() bool {
		_, _ = io.WriteString(keyboard, "stty size\n")
		time.Sleep(50 * time.Millisecond)
		return strings.Contains(screen.String(), "44 88")
	})
	cancel() // the client goes away; the container stays
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Errorf("attach: %v", err)
	}
	h.waitFor(id, StateRunning)
}

func TestReopenLog(t *testing.T) {
	h := newHost(t, "runc")
	spec := h.spec("sh", "-c", "n=0; while :; do n=$((n+1)); echo $n; sleep 0.01; done")
	id := h.start(spec)
	poll(t, "output", func() bool { raw, _ := os.ReadFile(spec.LogPath); return len(raw) > 200 })
	if err := os.Rename(spec.LogPath, spec.LogPath+".old"); err != nil {
		t.Fatal(err)
	}
	if err := h.engine.ReopenLog(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	poll(t, "more output", func() bool { raw, _ := os.ReadFile(spec.LogPath); return len(raw) > 200 })
	old, err := os.ReadFile(spec.LogPath + ".old")
	if err != nil {
		t.Fatal(err)
	}
	last := strings.Fields(string(old))
	first := strings.Fields(h.output(spec))
	if len(last) == 0 || len(first) == 0 {
		t.Fatal("no output")
	}
	t.Logf("old log ends with %s, new one begins with %s", last[len(last)-1], first[0])
}
