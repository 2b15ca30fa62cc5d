package stream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	utilexec "k8s.io/utils/exec"

	"lighter.dev/lighter/agent/runtime"
)

// running is target for a container that has to run.
func (h *handler) running(w http.ResponseWriter, r *http.Request) (Container, bool) {
	pod, c, ok := h.target(w, r)
	if !ok {
		return c, false
	}
	if !c.Running || c.ID == "" {
		text := fmt.Sprintf("container %q in pod %q is not running", c.Name, pod.Name)
		if c.Waiting != "" {
			text = fmt.Sprintf("container %q in pod %q is waiting to start: %s", c.Name, pod.Name, c.Waiting)
		}
		http.Error(w, text, http.StatusBadRequest)
		return c, false
	}
	return c, true
}

func (h *handler) serveExec(w http.ResponseWriter, r *http.Request) {
	c, ok := h.running(w, r)
	if !ok {
		return
	}
	command := r.URL.Query()["command"]
	if len(command) == 0 {
		http.Error(w, "exec needs a command", http.StatusBadRequest)
		return
	}
	h.serveSession(w, r, func(w http.ResponseWriter, r *http.Request, opts *remotecommand.Options) {
		remotecommand.ServeExec(w, r, session{h.cfg.Runtime}, "", "", c.ID, command, opts,
			idleTimeout, creationTimeout, remotecommand.SupportedStreamingProtocols)
	})
}

func (h *handler) serveAttach(w http.ResponseWriter, r *http.Request) {
	c, ok := h.running(w, r)
	if !ok {
		return
	}
	h.serveSession(w, r, func(w http.ResponseWriter, r *http.Request, opts *remotecommand.Options) {
		opts.TTY = c.TTY
		if opts.TTY {
			opts.Stderr = false // a terminal has one output
		}
		remotecommand.ServeAttach(w, r, session{h.cfg.Runtime}, "", "", c.ID, opts,
			idleTimeout, creationTimeout, remotecommand.SupportedStreamingProtocols)
	})
}

// serveSession reads the options and hands on a request whose context ends when
// the client's connection does.
func (h *handler) serveSession(w http.ResponseWriter, r *http.Request,
	serve func(http.ResponseWriter, *http.Request, *remotecommand.Options)) {
	opts, err := remotecommand.NewOptions(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	inner := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		watched, r, done := untilDisconnect(w, r)
		defer done()
		serve(watched, r, opts)
	})
	if isWebSocketV5(r) {
		translateV5(w, r, opts, inner)
		return
	}
	inner(w, r)
}

// serveRun runs a command to its end and returns what it printed.
func (h *handler) serveRun(w http.ResponseWriter, r *http.Request) {
	c, ok := h.running(w, r)
	if !ok {
		return
	}
	command := strings.Fields(r.FormValue("cmd"))
	stdout, stderr, code, err := h.cfg.Runtime.ExecSync(r.Context(), c.ID, command, 0)
	switch {
	case err != nil:
		http.Error(w, err.Error(), http.StatusInternalServerError)
	case code != 0:
		http.Error(w, fmt.Sprintf("%s%scommand terminated with exit code %d", stdout, stderr, code), http.StatusInternalServerError)
	default:
		_, _ = w.Write(append(stdout, stderr...))
	}
}

// session connects the streams of a client to the runtime.
type session struct{ runtime Runtime }

// ExecInContainer implements remotecommand.Executor.
func (s session) ExecInContainer(ctx context.Context, _, _, id string, command []string, in io.Reader, out, errOut io.WriteCloser,
	tty bool, resize <-chan remotecommand.TerminalSize, timeout time.Duration) error {
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	code, err := s.runtime.Exec(ctx, id, runtime.ExecOptions{
		Command: command, TTY: tty, Stdin: in, Stdout: writer(out), Stderr: writer(errOut), Resize: sizes(ctx, resize),
	})
	var failed *runtime.Error
	if errors.As(err, &failed) {
		// The exit codes of shells: 127 not found, 126 not executable.
		code = 126
		if strings.Contains(failed.Message, "not found") || strings.Contains(failed.Message, "no such file") {
			code = 127
		}
		if errOut != nil {
			_, _ = fmt.Fprintln(errOut, failed.Message)
		} else if out != nil {
			_, _ = fmt.Fprintf(out, "%s\r\n", failed.Message)
		}
		err = nil
	}
	if err != nil {
		return err
	}
	if code != 0 {
		return utilexec.CodeExitError{Err: fmt.Errorf("command terminated with exit code %d", code), Code: code}
	}
	return nil
}

// AttachContainer implements remotecommand.Attacher.
func (s session) AttachContainer(ctx context.Context, _, _, id string, in io.Reader, out, errOut io.WriteCloser,
	tty bool, resize <-chan remotecommand.TerminalSize) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if !tty {
		resize = nil // WebSocket clients always have a channel for it
	}
	return s.runtime.Attach(ctx, id, runtime.AttachOptions{
		Stdin: in, Stdout: writer(out), Stderr: writer(errOut), Resize: sizes(ctx, resize),
	})
}

// writer keeps a nil interface nil.
func writer(w io.WriteCloser) io.Writer {
	if w == nil {
		return nil
	}
	return w
}

// sizes converts terminal sizes until ctx ends.
func sizes(ctx context.Context, in <-chan remotecommand.TerminalSize) <-chan runtime.TerminalSize {
	if in == nil {
		return nil
	}
	out := make(chan runtime.TerminalSize, 1)
	go func() {
		defer close(out)
		for {
			select {
			case <-ctx.Done():
				return
			case size, ok := <-in:
				if !ok {
					return
				}
				select {
				case out <- runtime.TerminalSize{Width: size.Width, Height: size.Height}:
				case <-ctx.Done():
					return
				}
			}
		}
	}()
	return out
}
