package btrfs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/storage"
	"github.com/containerd/continuity/fs"
	"github.com/containerd/errdefs"
)

// snapshotter keeps the subvolume of each snapshot in snapshots/ID, whatever its
// kind. A committed one is read-only for the kernel, and so is a view.
type snapshotter struct {
	root string
	meta *storage.MetaStore
}

var (
	_ snapshots.Snapshotter = (*snapshotter)(nil)
	_ snapshots.Cleaner     = (*snapshotter)(nil)
)

// New opens or creates a snapshotter in a folder on btrfs, and removes what a
// process that died left there.
func New(ctx context.Context, root string) (snapshots.Snapshotter, error) {
	if err := os.MkdirAll(filepath.Join(root, "snapshots"), 0o700); err != nil {
		return nil, err
	}
	if err := checkFileSystem(root); err != nil {
		return nil, err
	}
	meta, err := storage.NewMetaStore(filepath.Join(root, "metadata.db"))
	if err != nil {
		return nil, fmt.Errorf("open the metadata of snapshots: %w", err)
	}
	s := &snapshotter{root: root, meta: meta}
	if err := s.Cleanup(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("remove unfinished snapshots: %w", err), meta.Close())
	}
	return s, nil
}

// Stat implements snapshots.Snapshotter.
func (s *snapshotter) Stat(ctx context.Context, key string) (info snapshots.Info, err error) {
	err = s.meta.WithTransaction(ctx, false, func(ctx context.Context) error {
		_, info, _, err = storage.GetInfo(ctx, key)
		return err
	})
	return info, err
}

// Update implements snapshots.Snapshotter.
func (s *snapshotter) Update(ctx context.Context, info snapshots.Info, fields ...string) (updated snapshots.Info, err error) {
	err = s.meta.WithTransaction(ctx, true, func(ctx context.Context) error {
		updated, err = storage.UpdateInfo(ctx, info, fields...)
		return err
	})
	return updated, err
}

// Usage implements snapshots.Snapshotter: what a snapshot has beyond its parent. That
// of an active one is counted anew, which reads both trees.
func (s *snapshotter) Usage(ctx context.Context, key string) (snapshots.Usage, error) {
	var id, parent string
	var info snapshots.Info
	var usage snapshots.Usage
	err := s.meta.WithTransaction(ctx, false, func(ctx context.Context) (err error) {
		if id, info, usage, err = storage.GetInfo(ctx, key); err == nil && info.Parent != "" {
			parent, _, _, err = storage.GetInfo(ctx, info.Parent)
		}
		return err
	})
	if err != nil || info.Kind != snapshots.KindActive {
		return usage, err
	}
	var counted fs.Usage
	if parent == "" {
		counted, err = fs.DiskUsage(ctx, s.path(id))
	} else {
		counted, err = fs.DiffUsage(ctx, s.path(parent), s.path(id))
	}
	if err != nil {
		return snapshots.Usage{}, fmt.Errorf("count what snapshot %s takes: %w", key, err)
	}
	return snapshots.Usage(counted), nil
}

// Mounts implements snapshots.Snapshotter.
func (s *snapshotter) Mounts(ctx context.Context, key string) ([]mount.Mount, error) {
	var snap storage.Snapshot
	err := s.meta.WithTransaction(ctx, false, func(ctx context.Context) (err error) {
		snap, err = storage.GetSnapshot(ctx, key)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("mounts of snapshot %s: %w", key, err)
	}
	return s.mounts(snap), nil
}

// mounts bind the subvolume to where it is wanted: unlike a mount by subvolume ID
// that works without the block devices, which a container of the agent's own may
// not see, and where there are several.
func (s *snapshotter) mounts(snap storage.Snapshot) []mount.Mount {
	mode := "ro"
	if snap.Kind == snapshots.KindActive {
		mode = "rw"
	}
	return []mount.Mount{{Type: "bind", Source: s.path(snap.ID), Options: []string{"rbind", mode}}}
}

// Prepare implements snapshots.Snapshotter.
func (s *snapshotter) Prepare(ctx context.Context, key, parent string, opts ...snapshots.Opt) ([]mount.Mount, error) {
	return s.create(ctx, snapshots.KindActive, key, parent, opts)
}

// View implements snapshots.Snapshotter.
func (s *snapshotter) View(ctx context.Context, key, parent string, opts ...snapshots.Opt) ([]mount.Mount, error) {
	return s.create(ctx, snapshots.KindView, key, parent, opts)
}

func (s *snapshotter) create(ctx context.Context, kind snapshots.Kind, key, parent string, opts []snapshots.Opt) ([]mount.Mount, error) {
	var snap storage.Snapshot
	err := s.meta.WithTransaction(ctx, true, func(ctx context.Context) (err error) {
		if snap, err = storage.CreateSnapshot(ctx, kind, key, parent, opts...); err != nil {
			return err
		}
		// Cleared away inside the transaction: after it, the ID may be another's.
		if err := s.make(snap.ID, snap.ParentIDs, kind == snapshots.KindView); err != nil {
			return errors.Join(err, destroySubvolume(s.path(snap.ID)))
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("make snapshot %s: %w", key, err)
	}
	return s.mounts(snap), nil
}

// Commit implements snapshots.Snapshotter. The subvolume stays where it is and
// becomes read-only, also under mounts that are still there.
func (s *snapshotter) Commit(ctx context.Context, name, key string, opts ...snapshots.Opt) error {
	usage, err := s.Usage(ctx, key)
	if err != nil {
		return err
	}
	var id string
	err = s.meta.WithTransaction(ctx, true, func(ctx context.Context) (err error) {
		if id, err = storage.CommitActive(ctx, key, name, usage, opts...); err != nil {
			return err
		}
		return setReadOnly(s.path(id), true)
	})
	if err != nil {
		err = fmt.Errorf("commit snapshot %s: %w", key, err)
		if id != "" {
			err = errors.Join(err, setReadOnly(s.path(id), false))
		}
	}
	return err
}

// Remove implements snapshots.Snapshotter. Once the record is gone the snapshot
// is: a subvolume that could not be removed is left to Cleanup.
func (s *snapshotter) Remove(ctx context.Context, key string) error {
	var id string
	err := s.meta.WithTransaction(ctx, true, func(ctx context.Context) (err error) {
		id, _, err = storage.Remove(ctx, key)
		return err
	})
	if err == nil {
		err = destroySubvolume(s.path(id))
	}
	if err != nil {
		return fmt.Errorf("remove snapshot %s: %w", key, err)
	}
	return nil
}

// Walk implements snapshots.Snapshotter.
func (s *snapshotter) Walk(ctx context.Context, fn snapshots.WalkFunc, filters ...string) error {
	return s.meta.WithTransaction(ctx, false, func(ctx context.Context) error {
		return storage.WalkInfo(ctx, fn, filters...)
	})
}

// Cleanup implements snapshots.Cleaner: it removes what no record leads to. The
// transaction keeps others from making snapshots meanwhile.
func (s *snapshotter) Cleanup(ctx context.Context) error {
	return s.meta.WithTransaction(ctx, true, func(ctx context.Context) error {
		ids, err := storage.IDMap(ctx)
		if err != nil && !errdefs.IsNotFound(err) { // before the first snapshot
			return err
		}
		known := make(map[string]bool, len(ids))
		for id := range ids {
			known[id] = true
		}
		return s.sweep(known)
	})
}

// Close implements snapshots.Snapshotter.
func (s *snapshotter) Close() error { return s.meta.Close() }
