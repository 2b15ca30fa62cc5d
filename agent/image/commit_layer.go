package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/pkg/archive"
	"github.com/containerd/containerd/v2/pkg/archive/compression"
	"github.com/containerd/containerd/v2/pkg/labels"
	"github.com/containerd/continuity/fs"
	"github.com/containerd/errdefs"
	"github.com/google/uuid"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// diffLayer makes a layer of what a container changed, and lets it go on as soon as
// its files are read.
func (s *Store) diffLayer(ctx context.Context, id string, how Commit) (layer ocispec.Descriptor, diffID digest.Digest, err error) {
	if how.Pause != nil {
		resume, perr := how.Pause(ctx)
		if perr != nil {
			return layer, "", perr
		}
		defer func() { err = errors.Join(err, resume()) }()
	}
	err = s.beside(ctx, containerKey(id), func(before, after string) error {
		layer, diffID, err = s.writeChanges(ctx, before, after, slices.Concat(how.MountPoints, madeByRuntime))
		return err
	})
	if err != nil {
		return layer, "", fmt.Errorf("read what it changed: %w", err)
	}
	return layer, diffID, nil
}

// writeChanges writes the difference between two folders as a layer (OCI image-spec).
// What was added at mount points is left out.
func (s *Store) writeChanges(ctx context.Context, before, after string, mounts mountPoints) (layer ocispec.Descriptor, diffID digest.Digest, err error) {
	ref := "commit/" + uuid.NewString()
	w, err := content.OpenWriter(ctx, s.content, content.WithRef(ref))
	if err != nil {
		return layer, "", err
	}
	defer func() {
		if err = errors.Join(err, w.Close()); err != nil {
			_ = s.content.Abort(context.WithoutCancel(ctx), ref) // the lease that ends takes it away as well
		}
	}()
	zipped, err := compression.CompressStream(w, compression.Gzip)
	if err != nil {
		return layer, "", err
	}
	plain := digest.Canonical.Digester()
	changes := archive.NewChangeWriter(io.MultiWriter(zipped, plain.Hash()), after)
	err = fs.Changes(ctx, before, after, func(kind fs.ChangeKind, name string, info os.FileInfo, err error) error {
		if err == nil && kind == fs.ChangeKindAdd && (mounts.hide(name) || mounts.lieBelow(name)) {
			return nil // a folder with anything else in it is written before that
		}
		return changes.HandleChange(kind, name, info, err)
	})
	if err = errors.Join(err, changes.Close(), zipped.Close()); err != nil {
		return layer, "", err
	}
	layer = ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: w.Digest()}
	uncompressed := map[string]string{labels.LabelUncompressed: plain.Digest().String()}
	if err := w.Commit(ctx, 0, layer.Digest, content.WithLabels(uncompressed)); err != nil && !errdefs.IsAlreadyExists(err) {
		return layer, "", err
	}
	info, err := s.content.Info(ctx, layer.Digest)
	layer.Size = info.Size
	return layer, plain.Digest(), err
}
