package image

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/metadata/boltutil"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"
)

const (
	// labelOrigin, on an image record, says how the image came to be if it did
	// not come from a registry: OriginBuild or OriginImport.
	labelOrigin = "lighter.dev/origin"
	// OriginBuild marks images that the cluster built.
	OriginBuild = "build"
	// OriginImport marks images that were imported from an archive.
	OriginImport = "import"

	// keepVersions is how many versions of one name stay after its tag moved.
	keepVersions = 2
)

// put creates or updates a record.
func (s *Store) put(ctx context.Context, rec images.Image) error {
	for {
		_, err := s.images.Update(ctx, rec)
		if !errdefs.IsNotFound(err) {
			return err
		}
		if _, err = s.images.Create(ctx, rec); !errdefs.IsAlreadyExists(err) {
			return err
		}
	}
}

// inTx runs fn in one database transaction: all or nothing, and one fsync.
func (s *Store) inTx(ctx context.Context, fn func(context.Context) error) error {
	return s.meta.Update(func(tx *bolt.Tx) error {
		return fn(boltutil.WithTransaction(ctx, tx))
	})
}

// record names an image that is present; name is a subject's record. A pinned
// version gets a record of its own (name@digest) and leaves the tag alone unless
// nothing or the cluster's current build says otherwise; else the tag moves to it.
func (s *Store) record(ctx context.Context, name string, target ocispec.Descriptor, pinned bool, origin string) error {
	labels := map[string]string{}
	if origin != "" {
		labels[labelOrigin] = origin
	}
	current := s.currentBuild(ctx, name)
	err := s.inTx(ctx, func(ctx context.Context) error {
		if pinned || origin == OriginBuild {
			if err := s.put(ctx, images.Image{Name: canonical(name, target.Digest), Target: target, Labels: labels}); err != nil {
				return err
			}
		}
		if !pinned || current == target.Digest {
			return s.put(ctx, images.Image{Name: name, Target: target, Labels: labels})
		}
		return nil
	})
	if err == nil && pinned {
		err = s.dropOldVersions(ctx, name)
	}
	if err != nil {
		return fmt.Errorf("name image %s: %w", name, err)
	}
	s.changed.notify()
	return nil
}

// pinRecord makes sure that a pinned version found here stays after its tag
// moves, and that the tag follows the cluster's current build.
func (s *Store) pinRecord(ctx context.Context, name string, target ocispec.Descriptor, want digest.Digest) error {
	if want == "" {
		return nil
	}
	current := s.currentBuild(ctx, name)
	if rec, err := s.images.Get(ctx, name); err == nil {
		if rec.Target.Digest == want || (current != want && s.has(ctx, canonical(name, want))) {
			return nil
		}
	} else if current != want && s.has(ctx, canonical(name, want)) {
		return nil
	}
	origin := ""
	if _, _, built := splitBuilt(name); built {
		origin = OriginBuild
	}
	return s.record(ctx, name, target, true, origin)
}

func (s *Store) has(ctx context.Context, record string) bool {
	_, err := s.images.Get(ctx, record)
	return err == nil
}

// Promote makes target, a complete image in the store, the meaning of all
// full names in a namespace at once and ends their staging: the last act of a
// build. Older versions are kept while containers of this host run them, plus
// the last two.
func (s *Store) Promote(ctx context.Context, namespace string, names []string, target ocispec.Descriptor) (Image, error) {
	ctx = s.in(ctx)
	img, err := s.inspect(ctx, names[0], target)
	if err != nil {
		return Image{}, fmt.Errorf("built image %s is incomplete: %w", target.Digest, err)
	}
	labels := map[string]string{labelOrigin: OriginBuild}
	err = s.inTx(ctx, func(ctx context.Context) error {
		for _, name := range names {
			name = BuiltName(namespace, name)
			for _, rec := range []string{name, canonical(name, target.Digest)} {
				if err := s.put(ctx, images.Image{Name: rec, Target: target, Labels: labels}); err != nil {
					return err
				}
			}
			if err := s.images.Delete(ctx, StagingName(name)); err != nil && !errdefs.IsNotFound(err) {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return Image{}, fmt.Errorf("name built image: %w", err)
	}
	for _, name := range names {
		if err := s.dropOldVersions(ctx, BuiltName(namespace, name)); err != nil {
			return Image{}, err
		}
	}
	s.changed.notify()
	return img, nil
}

// dropOldVersions deletes name@digest records beyond keepVersions that no
// container of this host uses.
func (s *Store) dropOldVersions(ctx context.Context, name string) error {
	recs, err := s.images.List(ctx)
	if err != nil {
		return err
	}
	used, err := s.usedDigests(ctx)
	if err != nil {
		return err
	}
	versions := slices.DeleteFunc(recs, func(r images.Image) bool {
		base, _, ok := splitCanonical(r.Name)
		return !ok || base != name
	})
	slices.SortFunc(versions, func(a, b images.Image) int { return recency(b).Compare(recency(a)) })
	for i, r := range versions {
		if i < keepVersions || len(used[r.Target.Digest]) > 0 {
			continue
		}
		if err := s.images.Delete(ctx, r.Name); err != nil && !errdefs.IsNotFound(err) {
			return err
		}
		s.log.Info("old image version dropped", "image", r.Name)
	}
	return nil
}

func recency(r images.Image) time.Time {
	if r.UpdatedAt.After(r.CreatedAt) {
		return r.UpdatedAt
	}
	return r.CreatedAt
}
