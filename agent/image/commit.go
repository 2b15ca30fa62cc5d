package image

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Commit describes how a container's file system becomes an image.
type Commit struct {
	// Change makes the new image's configuration of the old one's; nil leaves it.
	Change func(*ocispec.ImageConfig)
	// Edit goes on top of that.
	Edit Edit
	// MountPoints are what every container has mounted and nobody asked for. Files and
	// folders that were made for that are not part of the image.
	MountPoints []string
	// CreatedBy is the new history entry, for people.
	CreatedBy string
	// Pause, if not nil, stops the container's processes while its files are read;
	// they go on when resume is called.
	Pause func(context.Context) (resume func() error, err error)
}

// CommitContent makes an image of a container that Prepare gave its file system:
// the layers of its image and one with what the container changed. What it makes is
// kept by the lease of ctx alone, see Lease.
func (s *Store) CommitContent(ctx context.Context, containerID string, how Commit) (ocispec.Descriptor, error) {
	ctx = s.in(ctx)
	base, manifest, config, err := s.containerImage(ctx, containerID)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("commit container %s: %w", containerID, err)
	}
	layer, diffID, err := s.diffLayer(ctx, containerID, how)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("commit container %s: %w", containerID, err)
	}
	now := time.Now().UTC()
	config.Created = &now
	config.RootFS.Type = "layers"
	config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, diffID)
	config.History = append(config.History, ocispec.History{Created: &now, CreatedBy: how.CreatedBy, Comment: "lighter commit of an image " + base.String()})
	if how.Change != nil {
		how.Change(&config.Config)
	}
	if err := how.Edit.apply(&config); err != nil {
		return ocispec.Descriptor{}, err
	}
	target, err := s.writeImage(ctx, config, append(manifest.Layers, layer))
	if err == nil {
		err = s.fetchAndUnpack(ctx, job{target: target}, nil)
	}
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("commit container %s: %w", containerID, err)
	}
	return target, nil
}

// containerImage reads what the container's image is made of.
func (s *Store) containerImage(ctx context.Context, id string) (digest.Digest, ocispec.Manifest, ocispec.Image, error) {
	all, err := s.leases.List(ctx, "id=="+containerKey(id))
	if err == nil && len(all) == 0 {
		err = fmt.Errorf("it has no file system on this host any more: %w", errdefs.ErrNotFound)
	}
	if err != nil {
		return "", ocispec.Manifest{}, ocispec.Image{}, err
	}
	base := digest.Digest(all[0].Labels[labelImage])
	if err := s.hold(ctx, ocispec.Descriptor{Digest: base}); err != nil {
		return "", ocispec.Manifest{}, ocispec.Image{}, err
	}
	raw, err := readDocument(ctx, s.content, ocispec.Descriptor{Digest: base})
	if err != nil {
		return "", ocispec.Manifest{}, ocispec.Image{}, fmt.Errorf("read its image: %w", err)
	}
	target := ocispec.Descriptor{MediaType: sniffMediaType(raw), Digest: base, Size: int64(len(raw))}
	img, err := s.inspect(ctx, "", target)
	if err != nil {
		return "", ocispec.Manifest{}, ocispec.Image{}, fmt.Errorf("read its image: %w", err)
	}
	_, manifest, err := platformManifest(ctx, s.content, s.platform, target)
	return base, manifest, img.Config, err
}

// writeImage writes configuration and manifest.
func (s *Store) writeImage(ctx context.Context, config ocispec.Image, layers []ocispec.Descriptor) (ocispec.Descriptor, error) {
	configDesc, err := s.writeJSON(ctx, ocispec.MediaTypeImageConfig, config, nil)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	refs := map[string]string{"containerd.io/gc.ref.content.config": configDesc.Digest.String()}
	layers = slices.Clone(layers)
	for i := range layers {
		refs[fmt.Sprintf("containerd.io/gc.ref.content.l.%d", i)] = layers[i].Digest.String()
		if oci, ok := ociLayers[layers[i].MediaType]; ok {
			layers[i].MediaType = oci // the same bytes under OCI's name
		}
	}
	manifest := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Config: configDesc, Layers: layers,
	}
	return s.writeJSON(ctx, ocispec.MediaTypeImageManifest, manifest, refs)
}

// ociLayers are OCI's names of Docker's layer types.
var ociLayers = map[string]string{
	images.MediaTypeDockerSchema2Layer:     ocispec.MediaTypeImageLayer,
	images.MediaTypeDockerSchema2LayerGzip: ocispec.MediaTypeImageLayerGzip,
	images.MediaTypeDockerSchema2LayerZstd: ocispec.MediaTypeImageLayerZstd,
}
