package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"
)

// Create prepares a container up to the point where its process waits for
// Start. On failure it leaves nothing behind, but for one case: what the OCI
// runtime refuses stays as an exited container (code 128, Reason StartError)
// whose Message says why, until Delete or the next Create with its ID.
func (e *Engine) Create(ctx context.Context, spec ContainerSpec) error {
	if err := checkSpec(&spec); err != nil {
		return err
	}
	c := newContainer(spec.ID)
	c.spec = spec
	var err error
	if c.oci, err = e.runtimeOf(&spec); err != nil {
		return &Error{Reason: ReasonConfigError, Message: err.Error(), Err: err}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := e.claim(ctx, c); err != nil {
		return err
	}
	if err = e.create(ctx, c); err == nil {
		e.supervise(c)
		return nil
	}
	var refused *Error
	if errors.As(err, &refused) && refused.Reason == ReasonStartError {
		c.rec.Failed, c.rec.Reason, c.rec.Message = true, refused.Reason, refused.Message
		c.rec.FinishedAt = time.Now()
		return errors.Join(err, e.saveRecord(c))
	}
	if cleanErr := e.remove(context.WithoutCancel(ctx), c); cleanErr != nil {
		e.log.Warn("clean up after a failed create", "id", c.id, "err", cleanErr)
	}
	if refused == nil {
		err = &Error{Reason: ReasonCreateError, Message: err.Error(), Err: err}
	}
	return err
}

// claim reserves the ID. A container that never ran gives way to its next try.
func (e *Engine) claim(ctx context.Context, c *container) error {
	for {
		e.mu.Lock()
		old := e.containers[c.id]
		if old == nil {
			e.containers[c.id] = c
			e.mu.Unlock()
			return nil
		}
		e.mu.Unlock()
		old.mu.Lock()
		if old.gone {
			old.mu.Unlock()
			continue
		}
		failed := old.rec.Failed
		if failed {
			if err := e.remove(ctx, old); err != nil {
				old.mu.Unlock()
				return err
			}
		}
		old.mu.Unlock()
		if !failed {
			return fmt.Errorf("container %s: %w", c.id, errdefs.ErrAlreadyExists)
		}
	}
}

func checkSpec(spec *ContainerSpec) error {
	bad := func(what string) error {
		return &Error{Reason: ReasonConfigError, Message: what, Err: errdefs.ErrInvalidArgument}
	}
	switch {
	case spec.ID == "" || spec.ID[0] == '.' || strings.ContainsAny(spec.ID, "/\x00"):
		return bad(fmt.Sprintf("%q is no container ID", spec.ID))
	case spec.Container == nil:
		return bad("the container's API object is missing")
	case !filepath.IsAbs(spec.LogPath):
		return bad(fmt.Sprintf("log path %q has to be absolute", spec.LogPath))
	}
	return nil
}

func (e *Engine) create(ctx context.Context, c *container) error {
	// First the traces, then the thing: see the package's comment.
	c.rec = record{Boot: e.bootID, CreatedAt: time.Now()}
	if err := os.MkdirAll(e.stateDir(c.id), 0o700); err != nil {
		return err
	}
	if err := writeJSON(filepath.Join(e.stateDir(c.id), specFile), &c.spec); err != nil {
		return err
	}
	if err := e.saveRecord(c); err != nil {
		return err
	}
	created, err := e.makeBundle(ctx, c)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(c.spec.LogPath), 0o755); err != nil {
		return err
	}
	_ = os.Remove(e.exitFile(c.id))
	pid, err := e.startConmon(ctx, c)
	if err != nil {
		return err
	}
	created()
	c.rec.PID, c.rec.PIDStart = pid, startTime(pid)
	c.rec.ConmonPID = readPID(filepath.Join(e.bundleDir(c.id), conmonPIDFile))
	c.rec.ConmonStart = startTime(c.rec.ConmonPID)
	return e.saveRecord(c)
}

// makeBundle mounts the rootfs and writes the OCI spec beside it. created is to
// be called when the OCI runtime has created the container.
func (e *Engine) makeBundle(ctx context.Context, c *container) (created func(), err error) {
	rootfs := e.rootfs(c.id)
	if err := os.MkdirAll(rootfs, 0o700); err != nil {
		return nil, err
	}
	if err := mount.All(c.spec.RootFS, rootfs); err != nil {
		return nil, fmt.Errorf("mount the root file system: %w", err)
	}
	spec, err := e.ociSpec(ctx, &c.spec)
	if err != nil {
		return nil, err
	}
	created = func() {}
	if c.oci.filters {
		profile, ok, err := e.filters.apply(spec)
		if err != nil {
			return nil, err
		}
		if ok {
			created = func() { e.filters.learn(profile, filepath.Join(e.ociRoot(), c.id)) }
		}
	}
	return created, writeJSON(filepath.Join(e.bundleDir(c.id), "config.json"), spec)
}
