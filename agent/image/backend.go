package image

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/gc"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
)

// Backend is what package build shares with the Store, so that a layer that
// was built, pulled or run is there once. All of it is namespaced: use
// Namespace.
type Backend struct {
	Content         content.Store
	Images          images.Store
	Leases          leases.Manager
	Snapshots       snapshots.Snapshotter
	SnapshotterName string
	GarbageCollect  func(context.Context) (gc.Stats, error)
}

// Backend gives package build the stores themselves.
func (s *Store) Backend() Backend {
	return Backend{
		Content: s.content, Images: s.images, Leases: s.leases,
		Snapshots: s.snap, SnapshotterName: s.cfg.Snapshotter,
		GarbageCollect: s.meta.GarbageCollect,
	}
}

// Qualify is for the FROM of a build what Ensure does by itself: a full name that was
// written without a registry means an Image of the namespace, else an image of that
// name which this host has, unless fresh, else one of the default registry. It returns
// the full name that is meant.
func (s *Store) Qualify(ctx context.Context, namespace, full string, fresh bool) (string, error) {
	if s.cfg.DefaultRegistry == "" {
		return full, nil
	}
	named, err := reference.ParseNormalizedNamed(full)
	if err != nil {
		return "", fmt.Errorf("%w: %q: %w", ErrInvalidName, full, err)
	}
	ctx = s.in(ctx)
	record, _, err := Normalize(full)
	if err != nil {
		return "", err
	}
	if _, declared := s.lookupBuild(ctx, namespace, record); declared || !fresh && s.has(ctx, record) {
		return full, nil
	}
	return qualify(reference.FamiliarString(named), s.cfg.DefaultRegistry), nil
}

// EnsureNearby is Ensure for the FROM of a build in a namespace: this host and
// its peers are asked, a registry is not (BuildKit does that, with its client's
// credentials). It returns the reference for BuildKit to use: ref as it is, or
// a name for the very image that is here, which ResolveBase knows.
func (s *Store) EnsureNearby(ctx context.Context, namespace, ref string) (string, error) {
	ctx = s.in(ctx)
	name, pin, err := Normalize(ref)
	if err != nil {
		return "", err
	}
	built, declared := s.lookupBuild(ctx, namespace, name)
	sub := subject{namespace: namespace, name: name, built: declared}
	pl := plan{Want: pin, Steps: []step{useLocal, askPeers}}
	if declared {
		if pl, err = decide(name, pin, "", localState{}, built, true); err != nil {
			return "", err
		}
	} else if pin != "" {
		pl.Steps = []step{useLocal}
	}
	img, err := s.flights.do(ctx, flightKey(sub, pl, nil), nil, func(ctx context.Context, f *flight) (Image, error) {
		return s.carryOut(ctx, sub, pl, nil, f.report)
	})
	switch {
	case err == nil && pl.Want != "" && namespace != "" && img.Target.Algorithm() == digest.SHA256:
		return baseName(sub, img.Target), nil
	case err == nil:
		return ref, nil
	case declared || ctx.Err() != nil || !errors.Is(err, ErrPull):
		return "", err
	default:
		s.log.Debug("base image is not near, the registry is asked", "image", name, "error", err)
		return ref, nil // not found is not an error here
	}
}

// StagingName is where a build keeps its result until it is promoted to its
// record, see BuiltName. List does not show it; a new agent removes it.
func StagingName(record string) string { return stagingPrefix + record }

// Unstage removes staging records of full names.
func (s *Store) Unstage(ctx context.Context, namespace string, names []string) error {
	var errs []error
	for _, n := range names {
		if err := s.images.Delete(s.in(ctx), StagingName(BuiltName(namespace, n))); err != nil && !errdefs.IsNotFound(err) {
			errs = append(errs, fmt.Errorf("remove unfinished build of %s: %w", n, err))
		}
	}
	return errors.Join(errs...)
}

// Target finds what a digest that was just built is, for Promote.
func (s *Store) Target(ctx context.Context, namespace, name string, dgst digest.Digest) (images.Image, error) {
	rec, err := s.images.Get(s.in(ctx), StagingName(BuiltName(namespace, name)))
	if err == nil && rec.Target.Digest != dgst {
		err = fmt.Errorf("it means %s now: %w", rec.Target.Digest, errdefs.ErrFailedPrecondition)
	}
	if err != nil {
		return images.Image{}, fmt.Errorf("unfinished build of %s: %w", name, err)
	}
	return rec, nil
}
