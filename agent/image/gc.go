package image

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

const (
	// gcQuiet is how long the store has to be left alone before a collection:
	// it stops all writers, so it must not run in the middle of a roll-out.
	gcQuiet = 2 * time.Second
	// gcLatest is when it runs though the store is never quiet.
	gcLatest = 30 * time.Second
)

// collector runs the mark-and-sweep of containerd's metadata package some time
// after something was deleted.
type collector struct {
	meta *metadata.DB
	// folders removes what a snapshotter that failed in the middle (a full disk)
	// left; nil if the driver cannot tell.
	folders snapshots.Cleaner
	log     *slog.Logger
	dirty   chan struct{}
}

func newCollector(meta *metadata.DB, backend snapshots.Snapshotter, log *slog.Logger) *collector {
	folders, _ := backend.(snapshots.Cleaner)
	return &collector{meta: meta, folders: folders, log: log, dirty: make(chan struct{}, 1)}
}

// mutated is called by the database after every change.
func (c *collector) mutated(dirty bool) {
	if !dirty {
		return
	}
	select {
	case c.dirty <- struct{}{}:
	default:
	}
}

func (c *collector) run(ctx context.Context) {
	for {
		select {
		case <-c.dirty:
		case <-ctx.Done():
			return
		}
		if !c.waitQuiet(ctx) {
			return
		}
		if err := c.collect(ctx); err != nil && ctx.Err() == nil {
			c.log.Error("garbage collection of images failed, will be tried after the next change", "error", err)
		}
	}
}

// waitQuiet returns when no change was seen for gcQuiet, false if ctx ended.
func (c *collector) waitQuiet(ctx context.Context) bool {
	latest := time.NewTimer(gcLatest)
	defer latest.Stop()
	quiet := time.NewTimer(gcQuiet)
	defer quiet.Stop()
	for {
		select {
		case <-c.dirty:
			quiet.Reset(gcQuiet)
		case <-quiet.C:
			return true
		case <-latest.C:
			return true
		case <-ctx.Done():
			return false
		}
	}
}

func (c *collector) collect(ctx context.Context) error {
	_, err := c.meta.GarbageCollect(ctx)
	if err != nil || c.folders == nil {
		return err
	}
	if err := c.folders.Cleanup(ctx); err != nil && !errdefs.IsNotFound(err) { // never held a layer
		return err
	}
	return nil
}

// GC removes everything that no name, container, build or running pull refers
// to, now. It also runs by itself some seconds after each deletion.
func (s *Store) GC(ctx context.Context) error {
	if err := s.gc.collect(s.in(ctx)); err != nil {
		return fmt.Errorf("garbage collection of images: %w", err)
	}
	return nil
}

// Prune options.
type PruneOptions struct {
	// Before, if set, spares images that came after it.
	Before time.Time
	// Keep, if set, spares digests that the cluster still wants: those of Image
	// objects and of pods that are to start here.
	Keep func(digest.Digest) bool
}

// Prune removes the names of images that no container of this host uses, then
// collects garbage. It returns what it removed.
func (s *Store) Prune(ctx context.Context, opts PruneOptions) ([]Summary, error) {
	all, err := s.List(ctx)
	if err != nil {
		return nil, err
	}
	var gone []Summary
	for _, sum := range all {
		if sum.InUse() || (!opts.Before.IsZero() && sum.CreatedAt.After(opts.Before)) || (opts.Keep != nil && opts.Keep(sum.Digest)) {
			continue
		}
		if err := s.forget(ctx, sum.Digest); err != nil {
			return gone, err
		}
		s.log.Info("image pruned", "images", sum.Names, "bytes", sum.Size)
		gone = append(gone, sum)
	}
	return gone, s.GC(ctx)
}

// forget deletes every record of a digest.
func (s *Store) forget(ctx context.Context, dgst digest.Digest) error {
	ctx = s.in(ctx)
	recs, err := s.images.List(ctx, "target.digest=="+dgst.String())
	if err != nil {
		return err
	}
	for _, rec := range recs {
		if err := s.images.Delete(ctx, rec.Name); err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("remove image %s: %w", rec.Name, err)
		}
	}
	s.changed.notify()
	return nil
}

// sweep removes what an agent that was killed left: leases of pulls, names of
// unfinished builds, temporary files. What only they held is collected.
func (s *Store) sweep(ctx context.Context) error {
	ctx = s.in(ctx)
	var errs []error
	pulls, err := s.leases.List(ctx, leaseFilter(leasePull))
	errs = append(errs, err)
	for _, l := range pulls {
		errs = append(errs, s.leases.Delete(ctx, leases.Lease{ID: l.ID}))
	}
	recs, err := s.images.List(ctx)
	errs = append(errs, err)
	for _, rec := range recs {
		if strings.HasPrefix(rec.Name, stagingPrefix) {
			errs = append(errs, s.images.Delete(ctx, rec.Name))
		}
	}
	tmp := filepath.Join(s.cfg.Root, "tmp")
	errs = append(errs, os.RemoveAll(tmp), os.MkdirAll(tmp, 0o700))
	if len(pulls) > 0 {
		s.log.Info("unfinished pulls of the last run removed", "count", len(pulls))
		errs = append(errs, s.doubtSnapshots(ctx), s.GC(ctx))
	}
	return errors.Join(errs...)
}

// doubtSnapshots makes the next collection compare what the storage driver has with
// what the database knows, which it does after a removal only: an agent that is
// killed may have made a layer that it did not come to note.
func (s *Store) doubtSnapshots(ctx context.Context) error {
	const key = "sweep"
	if _, err := s.snap.Prepare(ctx, key, ""); err != nil && !errdefs.IsAlreadyExists(err) {
		return err
	}
	return s.snap.Remove(ctx, key)
}
