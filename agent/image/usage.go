package image

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"lighter.dev/lighter/api/agentapi"
)

// The rows of Docker's "system df".
const (
	rowImages     = "Images"
	rowContainers = "Containers"
)

// Usage measures images (blobs and unpacked layers, each once) and what containers
// have written, and the file system that holds both. Layers of the build cache are
// not in it.
func (s *Store) Usage(ctx context.Context) (agentapi.Usage, error) {
	ctx = s.in(ctx)
	var fs unix.Statfs_t
	if err := unix.Statfs(s.cfg.Root, &fs); err != nil {
		return agentapi.Usage{}, fmt.Errorf("measure file system of %s: %w", s.cfg.Root, err)
	}
	imageRow, err := s.imageUsage(ctx)
	if err != nil {
		return agentapi.Usage{}, fmt.Errorf("measure images: %w", err)
	}
	containerRow, err := s.containerUsage(ctx)
	if err != nil {
		return agentapi.Usage{}, fmt.Errorf("measure containers: %w", err)
	}
	return agentapi.Usage{
		Rows:     []agentapi.UsageRow{imageRow, containerRow},
		Capacity: int64(fs.Blocks) * fs.Bsize, Free: int64(fs.Bavail) * fs.Bsize,
	}, nil
}

func (s *Store) imageUsage(ctx context.Context) (agentapi.UsageRow, error) {
	list, err := s.List(ctx)
	if err != nil {
		return agentapi.UsageRow{}, err
	}
	row := agentapi.UsageRow{Type: rowImages, Total: len(list)}
	total, active := map[string]int64{}, map[string]int64{}
	for i := range list {
		parts, err := s.parts(ctx, list[i].recs[0].Target, list[i].img.Config)
		if err != nil {
			return agentapi.UsageRow{}, err
		}
		maps.Copy(total, parts)
		if list[i].InUse() {
			row.Active++
			maps.Copy(active, parts)
		}
	}
	for _, n := range total {
		row.Size += n
	}
	row.Reclaimable = row.Size
	for _, n := range active {
		row.Reclaimable -= n
	}
	return row, nil
}

// parts are the sizes of an image's blobs and snapshots, by digest and chain ID.
func (s *Store) parts(ctx context.Context, target ocispec.Descriptor, config ocispec.Image) (map[string]int64, error) {
	out := map[string]int64{}
	err := images.Walk(ctx, images.HandlerFunc(func(ctx context.Context, desc ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		info, err := s.content.Info(ctx, desc.Digest)
		if errdefs.IsNotFound(err) {
			return nil, images.ErrSkipDesc // another platform's
		}
		if err != nil {
			return nil, err
		}
		out[desc.Digest.String()] = info.Size
		return images.Children(ctx, s.content, desc)
	}), target)
	if err != nil {
		return nil, err
	}
	for _, chain := range identity.ChainIDs(slices.Clone(config.RootFS.DiffIDs)) {
		use, err := s.snap.Usage(ctx, chain.String())
		if err != nil && !errdefs.IsNotFound(err) {
			return nil, err
		}
		out["snapshot "+chain.String()] = use.Size
	}
	return out, nil
}

func (s *Store) containerUsage(ctx context.Context) (agentapi.UsageRow, error) {
	ids, err := s.Containers(ctx)
	if err != nil {
		return agentapi.UsageRow{}, err
	}
	row := agentapi.UsageRow{Type: rowContainers}
	for _, u := range s.cfg.Users(ctx, ids) {
		use, err := s.snap.Usage(ctx, containerKey(u.ID))
		if errdefs.IsNotFound(err) {
			continue // went meanwhile
		}
		if err != nil {
			return agentapi.UsageRow{}, err
		}
		row.Total++
		row.Size += use.Size
		if u.Running {
			row.Active++
		} else {
			row.Reclaimable += use.Size
		}
	}
	return row, nil
}

// diskUse is the sum of all blobs and unpacked layers, in bytes.
func (s *Store) diskUse(ctx context.Context) (int64, error) {
	var sum int64
	err := s.content.Walk(ctx, func(info content.Info) error { sum += info.Size; return nil })
	if err != nil {
		return 0, fmt.Errorf("measure image store: %w", err)
	}
	err = s.snap.Walk(ctx, func(ctx context.Context, info snapshots.Info) error {
		if info.Kind != snapshots.KindCommitted {
			return nil
		}
		use, err := s.snap.Usage(ctx, info.Name)
		if errdefs.IsNotFound(err) {
			return nil
		}
		sum += use.Size
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("measure image store: %w", err)
	}
	return sum, nil
}
