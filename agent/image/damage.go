package image

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// errDamaged: the disk gives other bytes than were written. Whoever asked for the
// image finds it incomplete from now on, and fetches the blob again.
var errDamaged = errors.New("damaged on this host's disk")

// readDocument reads an index, manifest or configuration and checks its digest: they
// are small, and a wrong byte in one would pass for another wish of its author.
func readDocument(ctx context.Context, cs content.Provider, desc ocispec.Descriptor) ([]byte, error) {
	raw, err := content.ReadBlob(ctx, cs, desc)
	if err != nil {
		return nil, err
	}
	if got := desc.Digest.Algorithm().FromBytes(raw); got != desc.Digest {
		return nil, fmt.Errorf("blob %s is %w", desc.Digest, errDamaged)
	}
	return raw, nil
}

// dropDamaged reads all blobs of an image and drops those that do not match their
// digest. The error names them; nil means that all are whole.
func (s *Store) dropDamaged(ctx context.Context, target ocispec.Descriptor) error {
	var errs []error
	seen := map[digest.Digest]bool{}
	walk := images.HandlerFunc(func(ctx context.Context, desc ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		if seen[desc.Digest] {
			return nil, images.ErrSkipDesc
		}
		seen[desc.Digest] = true
		switch err := s.checkBlob(ctx, desc.Digest); {
		case errdefs.IsNotFound(err):
			return nil, images.ErrSkipDesc
		case errors.Is(err, errDamaged):
			errs = append(errs, err, s.drop(ctx, desc.Digest))
			return nil, images.ErrSkipDesc
		case err != nil:
			return nil, err
		}
		return images.Children(ctx, s.content, desc)
	})
	errs = append(errs, images.Walk(ctx, walk, target))
	return errors.Join(errs...)
}

func (s *Store) checkBlob(ctx context.Context, dgst digest.Digest) error {
	ra, err := s.content.ReaderAt(ctx, ocispec.Descriptor{Digest: dgst})
	if err != nil {
		return err
	}
	defer ra.Close()
	return verify(ra, dgst)
}

// drop forgets a blob and takes its file away, so that the next fetch does not find
// and adopt it.
func (s *Store) drop(ctx context.Context, dgst digest.Digest) error {
	s.log.Error("blob on disk is damaged, dropped", "digest", dgst)
	err := s.content.Delete(ctx, dgst)
	if err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("drop damaged blob %s: %w", dgst, err)
	}
	s.changed.notify()
	return s.GC(ctx)
}
