package containers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	mobysignal "github.com/moby/sys/signal"
	"github.com/moby/term"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/remotecommand"
	kubectlterm "k8s.io/kubectl/pkg/util/term"
	"k8s.io/streaming/pkg/httpstream"
)

// streams say what of the caller's is connected to a container.
type streams struct{ stdin, tty bool }

// errDetached: the user has typed the detach keys.
var errDetached = errors.New("detached")

// checkTerminal refuses a terminal session without one, before anything is made.
func (o Options) checkTerminal(in io.Reader) error {
	if o.Detach || !o.TTY || !o.Stdin || isTerminal(in) {
		return nil
	}
	return errors.New("-t: the input is no terminal: leave it out, or use -i alone")
}

func isTerminal(stream any) bool {
	file, ok := stream.(*os.File)
	return ok && term.IsTerminal(file.Fd())
}

// attach connects to the container until it ends. Its error is errDetached when
// the user leaves it.
func (c *Cluster) attach(ctx context.Context, pod *corev1.Pod, s streams) error {
	ctx, leave := context.WithCancelCause(ctx)
	defer leave(nil)
	options := remotecommand.StreamOptions{Stdout: c.Out, Tty: s.tty}
	if !s.tty {
		options.Stderr = c.Err
	}
	if s.stdin {
		options.Stdin = c.In
		if s.tty {
			options.Stdin = term.NewEscapeProxy(c.In, detachKeys)
			options.Stdin = &untilEscape{options.Stdin, func() { leave(errDetached) }}
		}
	}
	executor, err := c.executor(pod, s)
	if err != nil {
		return err
	}
	stream := func() error {
		err := executor.StreamWithContext(ctx, options)
		if cause := context.Cause(ctx); err != nil && cause != nil {
			return cause
		}
		return err
	}
	if !s.tty {
		return stream()
	}
	tty := kubectlterm.TTY{In: c.In, Out: c.Out, Raw: s.stdin}
	if size := tty.GetSize(); size != nil {
		options.TerminalSizeQueue = sizes{tty.MonitorSize(size)}
	}
	return tty.Safe(stream)
}

// sizes gives one library's terminal sizes to another.
type sizes struct{ queue kubectlterm.TerminalSizeQueue }

func (s sizes) Next() *remotecommand.TerminalSize {
	size := s.queue.Next()
	if size == nil {
		return nil
	}
	return &remotecommand.TerminalSize{Width: size.Width, Height: size.Height}
}

// detachKeys are Docker's: ctrl-p ctrl-q.
var detachKeys = []byte{16, 17}

// untilEscape ends the session at the detach keys.
type untilEscape struct {
	in    io.Reader
	leave func()
}

func (u *untilEscape) Read(p []byte) (int, error) {
	n, err := u.in.Read(p)
	var escape term.EscapeError
	if errors.As(err, &escape) {
		u.leave()
		return n, io.EOF
	}
	return n, err
}

// executor speaks WebSocket, and SPDY where a proxy does not let that through.
func (c *Cluster) executor(pod *corev1.Pod, s streams) (remotecommand.Executor, error) {
	to := c.Kube.CoreV1().RESTClient().Post().Resource("pods").Namespace(pod.Namespace).Name(pod.Name).SubResource("attach").
		VersionedParams(&corev1.PodAttachOptions{
			Container: pod.Spec.Containers[0].Name, Stdin: s.stdin, Stdout: true, Stderr: !s.tty, TTY: s.tty,
		}, scheme.ParameterCodec).URL()
	spdy, err := remotecommand.NewSPDYExecutor(c.REST, "POST", to)
	if err != nil {
		return nil, err
	}
	websocket, err := remotecommand.NewWebSocketExecutor(c.REST, "GET", to.String())
	if err != nil {
		return nil, err
	}
	return remotecommand.NewFallbackExecutor(websocket, spdy, func(err error) bool {
		return httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err)
	})
}

// forwarded are the signals that a client passes on to its container.
var forwarded = []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2}

// patience is how many interrupts end the client itself, should the container
// take no notice.
const patience = 3

// errImpatient: the user wants to end the client, as the container does not end.
var errImpatient = fmt.Errorf("got %d interrupts: the container is left as it is", patience)

// forwardSignals passes the client's signals on, until stop is called. It calls
// leave when the user has lost patience.
func (c *Cluster) forwardSignals(ctx context.Context, pod *corev1.Pod, leave func(error)) (stop func()) {
	signals := make(chan os.Signal, len(forwarded))
	signal.Notify(signals, forwarded...)
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		for interrupts := 0; ; {
			select {
			case <-ctx.Done():
				return
			case sig := <-signals:
				if sig == syscall.SIGINT || sig == syscall.SIGTERM {
					if interrupts++; interrupts >= patience {
						leave(errImpatient)
						return
					}
				}
				if err := c.signal(ctx, pod, signalName(sig)); err != nil && ctx.Err() == nil {
					fmt.Fprintf(c.Err, "Cannot pass %s on to container %s: %v\n", sig, nameOf(pod), err)
				}
			}
		}
	}()
	return func() {
		signal.Stop(signals)
		cancel()
	}
}

func signalName(sig os.Signal) string {
	for name, number := range mobysignal.SignalMap {
		if number == sig {
			return name
		}
	}
	return sig.String()
}

// signal sends a signal to the pod's (first) container.
func (c *Cluster) signal(ctx context.Context, pod *corev1.Pod, name string) error {
	agent, err := c.Containers(pod)
	if err != nil {
		return err
	}
	return agent.Signal(ctx, pod.Spec.Containers[0].Name, name)
}
