package runtime

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/console"
	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"lighter.dev/lighter/agent/cgroup"
)

// TerminalSize is in characters.
type TerminalSize struct{ Width, Height uint16 }

// ExecOptions describe one more process in a running container. It gets the
// container's user, groups, environment, capabilities and seccomp profile.
type ExecOptions struct {
	Command []string
	// TTY gives it a terminal, to which Stdin is written and from which Stdout is
	// read; Stderr is unused then.
	TTY bool
	// Stdin, Stdout and Stderr may be nil. Exec does not wait for Stdin to end.
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	// Resize may be nil; it is read until closed or the process ends. With a TTY
	// the first size is waited for, but not for long.
	Resize <-chan TerminalSize
}

// drainGrace is how long output is read on after the process has ended: one of
// its children may hold the pipe for ever.
const drainGrace = 2 * time.Second

// sizeGrace is how long a client has to say how large its terminal is before the
// session goes on without. Nearly all say it at once.
const sizeGrace = time.Second

// Exec runs a process in a container and waits for it. Its exit code comes
// without error, whatever it is. When ctx ends the process and its group are
// killed. A command that cannot be started is an *Error with the runtime's words.
func (e *Engine) Exec(ctx context.Context, id string, opts ExecOptions) (int, error) {
	session, err := e.prepareExec(ctx, id, opts)
	if err != nil {
		return 0, err
	}
	defer session.cleanUp()
	if opts.TTY {
		err = session.runTTY(opts)
	} else {
		err = session.runPipes(opts)
	}
	return session.result(ctx, err)
}

// ExecSync runs a command for a probe or a hook and collects what it prints, up
// to 16 KiB a stream. A timeout of 0 is none; running into it is
// context.DeadlineExceeded.
func (e *Engine) ExecSync(ctx context.Context, id string, command []string, timeout time.Duration) (stdout, stderr []byte, code int, err error) {
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	var out, errOut limitedBuffer
	code, err = e.Exec(ctx, id, ExecOptions{Command: command, Stdout: &out, Stderr: &errOut})
	return out.Bytes(), errOut.Bytes(), code, err
}

// limitedBuffer keeps the first 16 KiB and swallows the rest.
type limitedBuffer struct{ bytes.Buffer }

func (b *limitedBuffer) Write(p []byte) (int, error) {
	const limit = 16 << 10
	b.Buffer.Write(p[:min(len(p), max(0, limit-b.Len()))])
	return len(p), nil
}

// execSession is one `runtime exec` in the foreground.
type execSession struct {
	cmd                   *exec.Cmd
	process, pidPath, log string
}

func (e *Engine) prepareExec(ctx context.Context, id string, opts ExecOptions) (*execSession, error) {
	if len(opts.Command) == 0 {
		return nil, fmt.Errorf("exec in container %s: no command: %w", id, errdefs.ErrInvalidArgument)
	}
	c, err := e.lookup(id)
	if err != nil {
		return nil, err
	}
	state := e.state(c)
	c.mu.Unlock()
	if state != StateRunning {
		return nil, fmt.Errorf("exec in container %s: it is %s: %w", id, state, errdefs.ErrFailedPrecondition)
	}
	bundle := e.bundleDir(id)
	var spec specs.Spec
	if err := readJSON(filepath.Join(bundle, "config.json"), &spec); err != nil {
		return nil, err
	}
	process := spec.Process
	process.Args, process.Terminal = opts.Command, opts.TTY
	if opts.TTY {
		process.Env = append(process.Env, "TERM=xterm")
	}
	dir, err := os.MkdirTemp(bundle, "exec-")
	if err != nil {
		return nil, err
	}
	s := &execSession{
		process: filepath.Join(dir, "process.json"),
		pidPath: filepath.Join(dir, pidFile),
		log:     filepath.Join(dir, "log"),
	}
	if err := writeJSON(s.process, process); err != nil {
		s.cleanUp()
		return nil, err
	}
	s.cmd = exec.CommandContext(ctx, c.oci.path, "--root", e.ociRoot(), "--log", s.log,
		"exec", "--process", s.process, "--pid-file", s.pidPath, id)
	s.cmd.Cancel = s.kill
	s.cmd.WaitDelay = drainGrace
	s.cmd.Dir = bundle
	return s, nil
}

func (s *execSession) cleanUp() { _ = os.RemoveAll(filepath.Dir(s.process)) }

// kill ends the process in the container with its group (an OCI runtime makes it
// a session leader), and by that the runtime that waits for it. A runtime that is
// about to start the process is left to do so: killed in the middle, runc leaves
// mounts and processes behind.
func (s *execSession) kill() error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	pid := s.cmd.Process.Pid
	if ended, err := watchExit(ctx, pid, startTime(pid)); err == nil {
		go func() {
			<-ended
			cancel()
		}()
	}
	if started, err := watchFor(ctx, s.pidPath); err == nil {
		<-started //nolint:errcheck // or an error: it takes too long, or has ended
	}
	if pid := readPID(s.pidPath); pid > 1 {
		_ = unix.Kill(-pid, unix.SIGKILL)
		_ = unix.Kill(pid, unix.SIGKILL)
		return nil
	}
	return killWithChildren(s.cmd.Process)
}

// killWithChildren ends a runtime that hangs before it has started a process: it
// is stopped, so that it makes no more children, and killed after those that it
// has. They clone one another as its children (CLONE_PARENT), hence the rounds.
func killWithChildren(parent *os.Process) error {
	if err := parent.Signal(unix.SIGSTOP); err != nil {
		return err
	}
	for range 64 {
		fresh := false
		for _, pid := range childrenOf(parent.Pid) {
			if !cgroup.Dying(pid) {
				fresh = true
				_ = unix.Kill(pid, unix.SIGKILL)
			}
		}
		if !fresh {
			break
		}
	}
	return parent.Kill()
}

func childrenOf(pid int) []int {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	var out []int
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		for _, field := range strings.Fields(string(raw)) {
			if child, err := strconv.Atoi(field); err == nil {
				out = append(out, child)
			}
		}
	}
	return out
}

func (s *execSession) runPipes(opts ExecOptions) error {
	s.cmd.Stdout, s.cmd.Stderr = opts.Stdout, opts.Stderr
	var stdin io.WriteCloser
	if opts.Stdin != nil {
		var err error
		if stdin, err = s.cmd.StdinPipe(); err != nil {
			return err
		}
	}
	if err := s.cmd.Start(); err != nil {
		return err
	}
	if stdin != nil {
		go func() {
			_, _ = io.Copy(stdin, opts.Stdin)
			_ = stdin.Close()
		}()
	}
	return s.cmd.Wait()
}

// runTTY gives the runtime a pseudo terminal as its own, as if it ran in a shell:
// it copies between that and the one in the container, and passes on sizes.
func (s *execSession) runTTY(opts ExecOptions) error {
	master, slavePath, err := console.NewPty()
	if err != nil {
		return fmt.Errorf("allocate a terminal: %w", err)
	}
	defer func() { _ = master.Close() }()
	slave, err := os.OpenFile(slavePath, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return fmt.Errorf("open a terminal: %w", err)
	}
	if size, ok := firstSize(opts.Resize); ok {
		_ = master.Resize(console.WinSize{Height: size.Height, Width: size.Width})
	}
	s.cmd.Stdin, s.cmd.Stdout, s.cmd.Stderr = slave, slave, slave
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	err = s.cmd.Start()
	_ = slave.Close()
	if err != nil {
		return err
	}
	running, end := context.WithCancel(context.Background())
	defer end()
	var resizing sync.WaitGroup
	resizing.Go(func() {
		resizeUntil(running.Done(), opts.Resize, func(size TerminalSize) {
			_ = master.Resize(console.WinSize{Height: size.Height, Width: size.Width})
			s.resizeInner(running, size)
		})
	})
	if opts.Stdin != nil {
		go func() { _, _ = io.Copy(master, opts.Stdin) }()
	}
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		out := opts.Stdout
		if out == nil {
			out = io.Discard
		}
		_, _ = io.Copy(out, master) // ends with EIO when the last user closes it
	}()
	err = s.cmd.Wait()
	end()
	resizing.Wait() // it must not touch a terminal that is closed
	select {
	case <-drained:
	case <-time.After(drainGrace):
	}
	return err
}

// resizeInner sets the size of the terminal in the container. runc copies it from
// ours on SIGWINCH, crun 1.8 at the start alone: a size that comes just then has to
// wait for the process. Best effort: that may be ending.
func (s *execSession) resizeInner(running context.Context, size TerminalSize) {
	pid := readPID(s.pidPath)
	for ; pid <= 0; pid = readPID(s.pidPath) {
		started, err := watchFor(running, s.pidPath)
		if err != nil {
			return
		}
		<-started //nolint:errcheck // or an error: it takes long, or has ended
		if running.Err() != nil {
			return
		}
	}
	fd, err := unix.Open(fmt.Sprintf("/proc/%d/fd/0", pid), unix.O_RDONLY|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer func() { _ = unix.Close(fd) }()
	_ = unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: size.Height, Col: size.Width})
}

// firstSize waits for the size that clients of a terminal send first, so that no
// key reaches a program before it can know how large its terminal is.
func firstSize(sizes <-chan TerminalSize) (size TerminalSize, ok bool) {
	if sizes == nil {
		return size, false
	}
	select {
	case size, ok = <-sizes:
	case <-time.After(sizeGrace):
	}
	return size, ok
}

// resizeUntil applies sizes until either channel closes.
func resizeUntil(ended <-chan struct{}, sizes <-chan TerminalSize, apply func(TerminalSize)) {
	for {
		select {
		case <-ended:
			return
		case size, ok := <-sizes:
			if !ok {
				return
			}
			apply(size)
		}
	}
}

// result turns the end of the runtime into the end of the process.
func (s *execSession) result(ctx context.Context, err error) (int, error) {
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return 0, fmt.Errorf("exec: %w", ctx.Err())
	case err == nil, errors.Is(err, exec.ErrWaitDelay):
		return s.cmd.ProcessState.ExitCode(), nil
	case !errors.As(err, &exit):
		return 0, err
	}
	if exists(s.pidPath) {
		return exit.ExitCode(), nil
	}
	text, readErr := os.ReadFile(s.log)
	if readErr != nil || len(text) == 0 {
		return exit.ExitCode(), nil //nolint:nilerr // without a log the exit code is all there is
	}
	message := strings.TrimPrefix(runtimeMessage(string(text)), "exec failed: unable to start container process: ")
	return 0, &Error{Reason: ReasonStartError, Message: message, Err: errRefused}
}
