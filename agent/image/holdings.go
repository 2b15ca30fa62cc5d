package image

import (
	"context"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// Built is a record of what the cluster made.
type Built struct {
	// Namespace is that of the Image object, Name a full name that it declares or
	// declared.
	Namespace, Name string
	Digest          digest.Digest
	// Version: the record keeps an exact version of the name, whatever it means now.
	Version bool
}

// Built lists the records of what the cluster made.
func (s *Store) Built(ctx context.Context) ([]Built, error) {
	recs, err := s.images.List(s.in(ctx))
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	var out []Built
	for _, rec := range recs {
		if strings.HasPrefix(rec.Name, stagingPrefix) {
			continue
		}
		name, _, version := splitCanonical(rec.Name)
		if namespace, name, built := splitBuilt(name); built {
			out = append(out, Built{Namespace: namespace, Name: name, Digest: rec.Target.Digest, Version: version})
		}
	}
	return out, nil
}

// DropBuilt removes records of what the cluster made, unless they mean another
// version by now. Content that nothing else refers to goes with the next garbage
// collection.
func (s *Store) DropBuilt(ctx context.Context, gone []Built) error {
	ctx = s.in(ctx)
	err := s.inTx(ctx, func(ctx context.Context) error {
		for _, b := range gone {
			name := BuiltName(b.Namespace, b.Name)
			if b.Version {
				name = canonical(name, b.Digest)
			}
			rec, err := s.images.Get(ctx, name)
			if err == nil && rec.Target.Digest == b.Digest {
				err = s.images.Delete(ctx, name)
			}
			if err != nil && !errdefs.IsNotFound(err) {
				return fmt.Errorf("remove image %s: %w", name, err)
			}
		}
		return nil
	})
	if err == nil {
		s.changed.notify()
	}
	return err
}

// Used are the digests that containers of this host run or ran.
func (s *Store) Used(ctx context.Context) (map[digest.Digest]bool, error) {
	byDigest, err := s.usedDigests(s.in(ctx))
	if err != nil {
		return nil, fmt.Errorf("list used images: %w", err)
	}
	used := make(map[digest.Digest]bool, len(byDigest))
	for dgst := range byDigest {
		used[dgst] = true
	}
	return used, nil
}
