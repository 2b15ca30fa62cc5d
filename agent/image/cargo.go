package image

import (
	"context"
	"fmt"
	"maps"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/pkg/labels"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// cargo is what a push sends.
type cargo struct {
	// root is what the name will mean: the last of manifests.
	root ocispec.Descriptor
	// manifests are in the order in which a registry takes them, children first;
	// blobs are configurations and layers.
	manifests, blobs []ocispec.Descriptor
	// size is that of the layers, in bytes.
	size int64
	// note is what a person should know, or "".
	note string
}

func (c *cargo) all() []ocispec.Descriptor {
	return append(c.blobs[:len(c.blobs):len(c.blobs)], c.manifests...)
}

// load finds all that belongs to an image. Where an index names platforms that are
// not here, which is usual for what was pulled, only this host's manifest is sent:
// a registry refuses an index of which it lacks a part.
func (s *Store) load(ctx context.Context, target ocispec.Descriptor) (cargo, error) {
	c := cargo{root: target}
	err := s.collect(ctx, target, &c, map[digest.Digest]bool{})
	if err == nil || !images.IsIndexType(target.MediaType) || !errdefs.IsNotFound(err) {
		return c, err
	}
	desc, _, perr := platformManifest(ctx, s.content, s.platform, target)
	if perr != nil {
		return cargo{}, perr
	}
	desc.Annotations = nil // those of the index's entry
	c = cargo{root: desc, note: fmt.Sprintf("Only %s of this image is on the host: its manifest %s was pushed instead of the index %s",
		platforms.DefaultString(), desc.Digest, target.Digest)}
	return c, s.collect(ctx, desc, &c, map[digest.Digest]bool{})
}

// collect adds desc and what it refers to.
func (s *Store) collect(ctx context.Context, desc ocispec.Descriptor, c *cargo, seen map[digest.Digest]bool) error {
	if seen[desc.Digest] || images.IsNonDistributable(desc.MediaType) {
		return nil
	}
	seen[desc.Digest] = true
	info, err := s.content.Info(ctx, desc.Digest)
	if errdefs.IsNotFound(err) {
		return fmt.Errorf("blob %s is not on this host, pull the image again: %w", desc.Digest, err)
	}
	if err != nil {
		return err
	}
	isManifest := images.IsManifestType(desc.MediaType) || images.IsIndexType(desc.MediaType)
	children, err := images.Children(ctx, s.content, desc)
	if err != nil {
		return err
	}
	for _, child := range children {
		if err := s.collect(ctx, child, c, seen); err != nil {
			return err
		}
	}
	desc.Annotations = sources(info.Labels)
	if isManifest {
		c.manifests = append(c.manifests, desc)
		return nil
	}
	if images.IsLayerType(desc.MediaType) {
		c.size += desc.Size
	}
	c.blobs = append(c.blobs, desc)
	return nil
}

// sources are the labels that say in which repositories a blob is known to be;
// containerd's pusher takes them from a descriptor's annotations, and asks the
// registry to mount the blob from there (OCI distribution-spec, "mounting a blob").
func sources(blobLabels map[string]string) map[string]string {
	var out map[string]string
	for k, v := range blobLabels {
		if strings.HasPrefix(k, labels.LabelDistributionSource+".") {
			if out == nil {
				out = map[string]string{}
			}
			out[k] = v
		}
	}
	return maps.Clone(out)
}

// noteSource notes on blobs in which repository they are.
func (s *Store) noteSource(ctx context.Context, blobs []ocispec.Descriptor, name string) error {
	note, err := docker.AppendDistributionSourceLabel(s.content, name)
	if err != nil {
		return fmt.Errorf("note where %s came from: %w", name, err)
	}
	err = s.inTx(ctx, func(ctx context.Context) error {
		for _, desc := range blobs {
			if _, err := note(ctx, desc); err != nil && !errdefs.IsNotFound(err) {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("note where %s came from: %w", name, err)
	}
	return nil
}

// countingPusher tells how far each blob is.
type countingPusher struct {
	remotes.Pusher
	count func(sent int64)
}

func (p countingPusher) Push(ctx context.Context, desc ocispec.Descriptor) (content.Writer, error) {
	inner, err := p.Pusher.Push(ctx, desc)
	if err != nil {
		return nil, err
	}
	return &countingWriter{Writer: inner, count: p.count}, nil
}

type countingWriter struct {
	content.Writer
	count func(int64)
	sent  int64
}

func (w *countingWriter) Write(p []byte) (int, error) {
	n, err := w.Writer.Write(p)
	w.sent += int64(n)
	if st, serr := w.Status(); serr == nil {
		w.sent = st.Offset // a broken upload begins anew
	}
	w.count(w.sent)
	return n, err
}
