package reclaim

import (
	"context"
	"fmt"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"lighter.dev/lighter/agent/image"
)

// Store is the part of a World that an image store is.
type Store struct {
	*image.Store
	dir    string
	wanted func(image.Summary) bool
}

// NewStore looks at a store whose files are on the file system of dir. wanted tells
// which images have to stay though no container uses them.
func NewStore(store *image.Store, dir string, wanted func(image.Summary) bool) *Store {
	return &Store{store, dir, wanted}
}

// Disk implements World.
func (s *Store) Disk() (Disk, error) {
	var stat unix.Statfs_t
	if err := unix.Statfs(s.dir, &stat); err != nil {
		return Disk{}, fmt.Errorf("measure the file system of %s: %w", s.dir, err)
	}
	return Disk{Capacity: int64(stat.Blocks) * stat.Bsize, Free: int64(stat.Bavail) * stat.Bsize}, nil
}

// Images implements World. What the cluster made is kept: package keep drops it when
// its Image is gone.
func (s *Store) Images(ctx context.Context) ([]Image, error) {
	list, err := s.List(ctx)
	if err != nil {
		return nil, err
	}
	images := make([]Image, 0, len(list))
	for _, sum := range list {
		images = append(images, Image{
			Digest: sum.Digest, Names: sum.Names, Size: sum.Size, Arrived: sum.CreatedAt,
			Kept: len(sum.Namespaces) > 0 || s.wanted(sum),
		})
	}
	return images, nil
}

// Remove implements World.
func (s *Store) Remove(ctx context.Context, dgst digest.Digest) error {
	_, err := s.Prune(ctx, image.PruneOptions{Keep: func(other digest.Digest) bool { return other != dgst }})
	return err
}
