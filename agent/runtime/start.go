package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// startTimeout bounds the hand-shake with the container's first process.
const startTimeout = 30 * time.Second

// Start lets a created container run. A container that runs or has run already
// is an error (errdefs.ErrFailedPrecondition).
func (e *Engine) Start(ctx context.Context, id string) error {
	c, err := e.lookup(id)
	if err != nil {
		return err
	}
	defer c.mu.Unlock()
	if state := e.state(c); state != StateCreated {
		return fmt.Errorf("start container %s: it is %s: %w", id, state, errdefs.ErrFailedPrecondition)
	}
	began := time.Now()
	if err := e.release(ctx, c); err != nil {
		c.rec.Failed, c.rec.Reason, c.rec.Message = true, ReasonStartError, err.Error()
		c.rec.FinishedAt = time.Now()
		return &Error{Reason: ReasonStartError, Message: err.Error(), Err: errors.Join(err, e.saveRecord(c))}
	}
	c.rec.StartedAt = began
	e.events.add(id)
	return e.saveRecord(c)
}

// release opens the gate at which the container's process waits. runc's and
// crun's gate is a FIFO in their state directory; doing their `start` ourselves
// saves a fork of a large binary. Any other runtime is asked.
func (e *Engine) release(ctx context.Context, c *container) error {
	fifo := e.execFifo(c.id)
	if _, err := os.Lstat(fifo); err != nil || c.oci.gate == nil {
		out, err := exec.CommandContext(ctx, c.oci.path, "--root", e.ociRoot(), "start", c.id).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s: %w", runtimeMessage(string(out)), err)
		}
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	return c.oci.gate(ctx, fifo, func() bool { return e.initAlive(&c.rec) })
}

func (e *Engine) execFifo(id string) string {
	return filepath.Join(e.ociRoot(), id, "exec.fifo")
}

var errDiedBeforeStart = errors.New("the container's process ended before its start")

// runcGate: runc's first process opens the FIFO for writing, writes one byte and
// executes the command. `runc start` reads the byte and removes the FIFO.
func runcGate(ctx context.Context, fifo string, alive func() bool) error {
	// Without O_NONBLOCK open would wait for a writer that may be dead.
	fd, err := unix.Open(fifo, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", fifo, err)
	}
	defer func() { _ = unix.Close(fd) }()
	err = pollGate(ctx, fd, unix.POLLIN, alive)
	if err != nil {
		return err
	}
	var buf [16]byte
	if n, err := unix.Read(fd, buf[:]); err != nil || n == 0 {
		return fmt.Errorf("%w: read %s: %w", errDiedBeforeStart, fifo, err)
	}
	return os.Remove(fifo)
}

// crunGate: crun's first process holds the FIFO open for reading and waits for a
// byte. `crun start` removes the FIFO and writes it.
func crunGate(_ context.Context, fifo string, alive func() bool) error {
	fd, err := unix.Open(fifo, unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENXIO) || (err == nil && !alive()) {
		return errDiedBeforeStart
	}
	if err != nil {
		return fmt.Errorf("open %s: %w", fifo, err)
	}
	defer func() { _ = unix.Close(fd) }()
	if err := os.Remove(fifo); err != nil {
		return err
	}
	_, err = unix.Write(fd, []byte{'0'})
	return err
}

// pollGate waits for the first process; it looks up now and then whether that
// still lives, as a FIFO that never had a writer reports nothing.
func pollGate(ctx context.Context, fd int, events int16, alive func() bool) error {
	const lookMS = 50
	for wait := lookMS; ; {
		polled := []unix.PollFd{{Fd: int32(fd), Events: events}}
		n, err := unix.Poll(polled, wait)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return fmt.Errorf("wait for the container's process: %w", err)
		case n > 0 && polled[0].Revents&events != 0:
			return nil
		case n > 0 || wait == 0:
			return errDiedBeforeStart
		case !alive():
			// It may have passed the gate since, and run to its end: look once more.
			wait = 0
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}
