package runtime

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
)

// pauseWait is how long processes in the middle of a system call may take to stop.
const pauseWait = 10 * time.Second

// Pause stops all processes of a running container where they are, until Resume. A
// pause does not outlive the process that asked for it: the next one resumes what
// it adopts. A container that does not run is errdefs.ErrFailedPrecondition; a host
// without a freezer is errdefs.ErrNotImplemented.
func (e *Engine) Pause(ctx context.Context, id string) error {
	c, err := e.lookup(id)
	if err != nil {
		return err
	}
	defer c.mu.Unlock()
	if state := e.state(c); state != StateRunning {
		return fmt.Errorf("pause container %s: it is %s: %w", id, state, errdefs.ErrFailedPrecondition)
	}
	// First the trace, then the thing.
	c.rec.Paused = true
	if err := e.saveRecord(c); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, pauseWait)
	defer cancel()
	if err := e.cgroups.Freeze(ctx, e.containerCgroup(&c.spec)); err != nil {
		return errors.Join(fmt.Errorf("pause container %s: %w", id, err), e.resume(c))
	}
	return nil
}

// Resume lets a container go on that Pause stopped. It is well if it was not paused
// or is gone.
func (e *Engine) Resume(_ context.Context, id string) error {
	c, err := e.lookup(id)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer c.mu.Unlock()
	return e.resume(c)
}

// resume is Resume with c.mu held.
func (e *Engine) resume(c *container) error {
	if !c.rec.Paused {
		return nil
	}
	if err := e.cgroups.Thaw(e.containerCgroup(&c.spec)); err != nil {
		return fmt.Errorf("resume container %s: %w", c.id, err)
	}
	c.rec.Paused = false
	return e.saveRecord(c)
}
