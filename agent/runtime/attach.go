package runtime

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// AttachOptions say what to connect to a container's first process.
type AttachOptions struct {
	// Stdin, Stdout and Stderr may be nil. With a terminal all output is Stdout.
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	// Resize is nil if the container has no terminal. The first size is waited for,
	// but not for long.
	Resize <-chan TerminalSize
}

// conmon sends packets whose first byte names the stream.
const (
	attachStdout = 2
	attachStderr = 3
	// attachPacket is conmon's buffer and that byte.
	attachPacket = 8192 + 1
)

// Attach connects to a container's first process until it ends, ctx ends, or,
// with neither Stdout nor Stderr, Stdin ends. What was printed before is in the log.
func (e *Engine) Attach(ctx context.Context, id string, opts AttachOptions) error {
	c, err := e.lookup(id)
	if err != nil {
		return err
	}
	state := e.state(c)
	c.mu.Unlock()
	if state != StateRunning && state != StateCreated {
		return fmt.Errorf("attach to container %s: it is %s: %w", id, state, errdefs.ErrFailedPrecondition)
	}
	conn, err := dialIn(e.bundleDir(id), "attach")
	if err != nil {
		return fmt.Errorf("attach to container %s: %w", id, err)
	}
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	resize := func(size TerminalSize) {
		if err := e.control(id, fmt.Sprintf("1 %d %d\n", size.Height, size.Width)); err != nil {
			e.log.Debug("resize a terminal", "id", id, "err", err)
		}
	}
	if size, ok := firstSize(opts.Resize); ok {
		resize(size)
	}
	c.attachedOnce.Do(func() { close(c.attached) })

	ended := make(chan struct{})
	defer close(ended)
	go resizeUntil(ended, opts.Resize, resize)
	inputEnded := make(chan struct{})
	if opts.Stdin != nil {
		go func() {
			defer close(inputEnded)
			// conmon reads packets of at most its buffer's size.
			_, _ = io.CopyBuffer(onlyWriter{conn}, onlyReader{opts.Stdin}, make([]byte, attachPacket-1))
			_ = conn.CloseWrite()
		}()
	}
	if opts.Stdout == nil && opts.Stderr == nil {
		select {
		case <-inputEnded:
		case <-ctx.Done():
		}
		return ctx.Err()
	}
	if err := receive(conn, opts.Stdout, opts.Stderr); err != nil && ctx.Err() == nil {
		return fmt.Errorf("attach to container %s: %w", id, err)
	}
	return ctx.Err()
}

// WaitAttached returns when a client has attached to a container since its
// creation. A client that attaches before Start misses no output.
func (e *Engine) WaitAttached(ctx context.Context, id string) error {
	c, err := e.lookup(id)
	if err != nil {
		return err
	}
	c.mu.Unlock()
	select {
	case <-c.attached:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// onlyReader and onlyWriter hide ReadFrom and WriteTo, which would choose their
// own packet size.
type onlyReader struct{ io.Reader }
type onlyWriter struct{ io.Writer }

func receive(conn *net.UnixConn, stdout, stderr io.Writer) error {
	buf := make([]byte, attachPacket)
	for {
		n, err := conn.Read(buf)
		if n == 0 || errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET) || errors.Is(err, net.ErrClosed) {
			return nil // a packet of no bytes is the end
		}
		if err != nil {
			return err
		}
		to := stdout
		if buf[0] == attachStderr {
			to = stderr
		}
		if to == nil {
			continue
		}
		if _, err := to.Write(buf[1:n]); err != nil {
			return err
		}
	}
}

// dialIn connects to a socket by way of its directory's descriptor: the path of
// a bundle may be longer than the 108 bytes of sockaddr_un.
func dialIn(dir, name string) (*net.UnixConn, error) {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer func() { _ = unix.Close(fd) }()
	address := &net.UnixAddr{Net: "unixpacket", Name: fmt.Sprintf("/proc/self/fd/%d/%s", fd, name)}
	return net.DialUnix("unixpacket", nil, address)
}

// ReopenLog makes conmon open the log file anew after it was renamed. It returns
// when the new file is there.
func (e *Engine) ReopenLog(ctx context.Context, id string) error {
	c, err := e.lookup(id)
	if err != nil {
		return err
	}
	state, path := e.state(c), c.spec.LogPath
	c.mu.Unlock()
	if state != StateRunning && state != StateCreated {
		return fmt.Errorf("reopen the log of container %s: it is %s: %w", id, state, errdefs.ErrFailedPrecondition)
	}
	arrived, err := watchFor(ctx, path)
	if err != nil {
		return err
	}
	if err := e.control(id, "2 0 0\n"); err != nil {
		return fmt.Errorf("reopen the log of container %s: %w", id, err)
	}
	if err := <-arrived; err != nil {
		return fmt.Errorf("reopen the log of container %s: %w", id, err)
	}
	return nil
}

// control writes a line to conmon's control FIFO. Without a reader it fails at once.
func (e *Engine) control(id, line string) error {
	fifo := filepath.Join(e.bundleDir(id), "ctl")
	fd, err := unix.Open(fifo, unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: fifo, Err: err}
	}
	defer func() { _ = unix.Close(fd) }()
	_, err = unix.Write(fd, []byte(line))
	return err
}
