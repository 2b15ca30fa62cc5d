package build

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"lighter.dev/lighter/agent/image"
)

// temporaryLeases are BuildKit's own for the time of one build.
const temporaryLeases = `labels."buildkit/lease.temporary"`

// sweep removes what a killed agent left: containers of RUN steps, their
// mounts and folders, leases of unfinished builds.
func sweep(ctx context.Context, cfg Config) error {
	root := executorRoot(cfg.Root)
	errs := []error{killSteps(ctx, cfg, root), unmountBelow(cfg.Root)}
	entries, err := os.ReadDir(root)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		errs = append(errs, err)
	}
	for _, e := range entries {
		errs = append(errs, os.RemoveAll(filepath.Join(root, e.Name())))
	}
	return errors.Join(append(errs, dropLeases(ctx, cfg.Store))...)
}

// unmountBelow unmounts everything under dir, innermost first.
func unmountBelow(dir string) error {
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
	if err != nil {
		return err
	}
	var errs []error
	for i := len(mounts) - 1; i >= 0; i-- {
		if mounts[i].Mountpoint == dir {
			continue
		}
		if err := unix.Unmount(mounts[i].Mountpoint, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
			errs = append(errs, fmt.Errorf("unmount %s: %w", mounts[i].Mountpoint, err))
		}
	}
	return errors.Join(errs...)
}

func dropLeases(ctx context.Context, store *image.Store) error {
	be := store.Backend()
	ctx = namespaces.WithNamespace(ctx, image.Namespace)
	old, err := be.Leases.List(ctx, temporaryLeases)
	if err != nil {
		return err
	}
	var errs []error
	for _, l := range old {
		if err := be.Leases.Delete(ctx, leases.Lease{ID: l.ID}); err != nil && !errdefs.IsNotFound(err) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// killSteps ends containers of RUN steps that outlived their agent. The
// executor names each bundle folder after its container.
func killSteps(ctx context.Context, cfg Config, root string) error {
	entries, err := os.ReadDir(root)
	if errors.Is(err, os.ErrNotExist) {
		return nil // never built here
	}
	if err != nil {
		return err
	}
	runtime, err := newRuntime(cfg)
	if err != nil {
		return nil //nolint:nilerr // without a runtime there are no steps
	}
	var errs []error
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		if err := runtime.Delete(ctx, e.Name(), forceDelete); err != nil && !strings.Contains(err.Error(), "does not exist") {
			errs = append(errs, fmt.Errorf("remove build step %s: %w", e.Name(), err))
			continue
		}
		cfg.Log.Info("build step of the last run removed", "id", e.Name())
	}
	return errors.Join(errs...)
}
