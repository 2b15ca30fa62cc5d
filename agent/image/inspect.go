package image

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// inspectImage reads what an image is from its blobs. It fails if one of
// index, manifest, configuration or layer blobs is missing.
func inspectImage(ctx context.Context, cs content.Store, platform platforms.MatchComparer, name string, target ocispec.Descriptor) (Image, error) {
	desc, manifest, err := platformManifest(ctx, cs, platform, target)
	if err != nil {
		return Image{}, err
	}
	raw, err := readDocument(ctx, cs, manifest.Config)
	if err != nil {
		return Image{}, fmt.Errorf("read image configuration: %w", err)
	}
	img := Image{Name: name, Target: target.Digest, Manifest: desc.Digest}
	if err := json.Unmarshal(raw, &img.Config); err != nil {
		return Image{}, fmt.Errorf("image configuration %s: %w", manifest.Config.Digest, err)
	}
	if len(img.Config.RootFS.DiffIDs) > 0 {
		img.ChainID = identity.ChainID(img.Config.RootFS.DiffIDs)
	}
	img.Size = desc.Size + manifest.Config.Size
	if desc.Digest != target.Digest {
		img.Size += target.Size
	}
	for _, layer := range manifest.Layers {
		if _, err := cs.Info(ctx, layer.Digest); err != nil {
			return Image{}, fmt.Errorf("layer %s: %w", layer.Digest, err)
		}
		img.Size += layer.Size
		img.LayerSize += layer.Size
	}
	return img, nil
}

// platformManifest follows an index (multi-platform image) to the manifest for
// this host, as OCI image-spec describes.
func platformManifest(ctx context.Context, cs content.Provider, platform platforms.MatchComparer, target ocispec.Descriptor) (ocispec.Descriptor, ocispec.Manifest, error) {
	desc := target
	for depth := 0; images.IsIndexType(desc.MediaType); depth++ {
		if depth > 3 {
			return desc, ocispec.Manifest{}, fmt.Errorf("image index %s is nested too deeply", target.Digest)
		}
		next, err := pickPlatform(ctx, cs, platform, desc)
		if err != nil {
			return desc, ocispec.Manifest{}, err
		}
		desc = next
	}
	var manifest ocispec.Manifest
	if !images.IsManifestType(desc.MediaType) {
		return desc, manifest, fmt.Errorf("%s is of type %q, not a container image", desc.Digest, desc.MediaType)
	}
	if err := readJSON(ctx, cs, desc, &manifest); err != nil {
		return desc, manifest, fmt.Errorf("image manifest: %w", err)
	}
	return desc, manifest, nil
}

// pickPlatform chooses the best entry of an index.
func pickPlatform(ctx context.Context, cs content.Provider, platform platforms.MatchComparer, index ocispec.Descriptor) (ocispec.Descriptor, error) {
	var idx ocispec.Index
	if err := readJSON(ctx, cs, index, &idx); err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("image index: %w", err)
	}
	var best *ocispec.Descriptor
	for i, m := range idx.Manifests {
		switch {
		case m.Platform == nil && best == nil:
			best = &idx.Manifests[i]
		case m.Platform == nil || !platform.Match(*m.Platform):
		case best == nil || best.Platform == nil || platform.Less(*m.Platform, *best.Platform):
			best = &idx.Manifests[i]
		}
	}
	if best == nil {
		return ocispec.Descriptor{}, fmt.Errorf("image %s has no variant for %s: %w", index.Digest, platforms.DefaultString(), errdefs.ErrNotFound)
	}
	return *best, nil
}

func readJSON(ctx context.Context, cs content.Provider, desc ocispec.Descriptor, into any) error {
	raw, err := readDocument(ctx, cs, desc)
	if err != nil {
		return err
	}
	return json.Unmarshal(raw, into)
}

// statChain finds the snapshot of an image's top layer. An image without
// layers needs none.
func (s *Store) statChain(ctx context.Context, chain digest.Digest) (snapshots.Info, error) {
	if chain == "" {
		return snapshots.Info{}, nil
	}
	return s.snap.Stat(ctx, chain.String())
}
