package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// Signal sends a signal to the container's first process. A container that has
// ended is errdefs.ErrFailedPrecondition, which callers may take for success.
func (e *Engine) Signal(_ context.Context, id string, sig syscall.Signal) error {
	c, err := e.lookup(id)
	if err != nil {
		return err
	}
	defer c.mu.Unlock()
	switch state := e.state(c); state {
	case StateCreated, StateRunning:
	default:
		return fmt.Errorf("signal container %s: it is %s: %w", id, state, errdefs.ErrFailedPrecondition)
	}
	if sig == unix.SIGKILL && c.spec.HostPID {
		// No PID namespace that dies with its first process.
		return e.cgroups.Kill(e.containerCgroup(&c.spec))
	}
	err = signalProcess(c.rec.PID, c.rec.PIDStart, sig)
	if errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("signal container %s: its process has ended: %w", id, errdefs.ErrFailedPrecondition)
	}
	return err
}

// Delete removes a container in whatever state it is: kills its processes,
// unmounts its root file system, removes its cgroup, bundle and records. The log
// file stays. It is well if there is no such container.
func (e *Engine) Delete(ctx context.Context, id string) error {
	c, err := e.lookup(id)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer c.mu.Unlock()
	return e.remove(ctx, c)
}

// ReleaseRootFS unmounts the file system of a container that has ended, so that
// its next attempt can mount it. What the container left (exit code, log,
// termination message) stays until Delete.
func (e *Engine) ReleaseRootFS(ctx context.Context, id string) error {
	c, err := e.lookup(id)
	if err != nil {
		return err
	}
	defer c.mu.Unlock()
	if state := e.state(c); state != StateExited && state != StateUnknown {
		return fmt.Errorf("release the root file system of container %s: it is %s: %w", id, state, errdefs.ErrFailedPrecondition)
	}
	// Without a PID namespace of its own, children may outlive the first process.
	if err := errors.Join(e.killAll(ctx, c), unmountAll(e.rootfs(id))); err != nil {
		return fmt.Errorf("release the root file system of container %s: %w", id, err)
	}
	return nil
}

// supervisorGrace is what conmon gets to write the exit file and drain the log
// once the container's processes are dead.
const supervisorGrace = 2 * time.Second

// remove undoes create in reverse, to the end even if a step fails. The state
// directory goes last, and only if all else went well, so that a failed Delete
// can be found and repeated. c.mu is held.
func (e *Engine) remove(ctx context.Context, c *container) error {
	var errs []error
	fail := func(what string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", what, err))
		}
	}
	fail("resume", e.resume(c)) // what is frozen does not die
	fail("kill", e.killAll(ctx, c))
	if c.oci.gate == nil && exists(filepath.Join(e.ociRoot(), c.id)) {
		_ = exec.CommandContext(ctx, c.oci.path, "--root", e.ociRoot(), "delete", "--force", c.id).Run()
	}
	fail("remove cgroup", e.removeCgroup(ctx, c))
	fail("remove OCI state", removeWithMounts(filepath.Join(e.ociRoot(), c.id)))
	fail("unmount", unmountAll(e.rootfs(c.id)))
	if len(errs) == 0 {
		fail("remove bundle", os.RemoveAll(e.bundleDir(c.id)))
	}
	if len(errs) == 0 {
		fail("remove exit file", removeFile(e.exitFile(c.id)))
		fail("remove state", os.RemoveAll(e.stateDir(c.id)))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("delete container %s: %w", c.id, err)
	}
	c.gone = true
	e.mu.Lock()
	if e.containers[c.id] == c {
		delete(e.containers, c.id)
	}
	e.mu.Unlock()
	return nil
}

// killAll ends the container's processes by its cgroup, then waits for conmon,
// which ends by itself when it has reported the exit.
func (e *Engine) killAll(ctx context.Context, c *container) error {
	if err := e.endCreation(ctx, c); err != nil {
		return err
	}
	supervised := e.conmonAlive(&c.rec)
	var ended <-chan struct{}
	if supervised {
		var err error
		if ended, err = watchExit(ctx, c.rec.ConmonPID, c.rec.ConmonStart); err != nil {
			supervised = false
		}
	}
	if c.spec.Container != nil {
		if err := e.cgroups.Kill(e.containerCgroup(&c.spec)); err != nil {
			return err
		}
	}
	if e.initAlive(&c.rec) {
		_ = signalProcess(c.rec.PID, c.rec.PIDStart, unix.SIGKILL)
	}
	if !supervised {
		return nil
	}
	timer := time.NewTimer(supervisorGrace)
	defer timer.Stop()
	select {
	case <-ended:
		return ctx.Err()
	case <-timer.C:
	}
	e.log.Warn("conmon does not end, killing it", "id", c.id, "pid", c.rec.ConmonPID)
	if err := signalProcess(c.rec.ConmonPID, c.rec.ConmonStart, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
		return err
	}
	select {
	case <-ended:
	case <-ctx.Done():
	}
	return ctx.Err()
}

func (e *Engine) removeCgroup(ctx context.Context, c *container) error {
	if c.spec.Container == nil {
		return nil // the spec was lost; the pod's cgroup takes it along
	}
	return e.cgroups.Remove(ctx, e.containerCgroup(&c.spec))
}

// unmountAll detaches every mount at a path. Lazily: a process that still has a
// file open there (a backup, an exec that dies) must not keep a pod from going.
func unmountAll(path string) error {
	if !exists(path) {
		return nil
	}
	return mount.UnmountAll(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
}

// removeWithMounts removes the OCI runtime's state. A runc that was killed may have
// left a bind mount of itself there.
func removeWithMounts(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	for _, entry := range entries {
		_ = unix.Unmount(filepath.Join(dir, entry.Name()), unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	}
	return os.RemoveAll(dir)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func removeFile(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
