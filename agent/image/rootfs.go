package image

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/pkg/archive/compression"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// spool writes the plain tar to a file, as it has to be read twice, and tells
// whether it is an image archive.
func (s *Store) spool(r io.Reader) (*os.File, bool, error) {
	plain, err := compression.DecompressStream(bufio.NewReader(r))
	if err != nil {
		return nil, false, err
	}
	defer plain.Close()
	file, err := os.CreateTemp(filepath.Join(s.cfg.Root, "tmp"), "import-")
	if err != nil {
		return nil, false, err
	}
	isImage := false
	if _, err = io.Copy(file, plain); err == nil {
		if _, err = file.Seek(0, io.SeekStart); err == nil {
			isImage, err = looksLikeImage(file)
		}
	}
	if err == nil {
		_, err = file.Seek(0, io.SeekStart)
	}
	if err != nil {
		return nil, false, errors.Join(err, file.Close(), os.Remove(file.Name()))
	}
	return file, isImage, nil
}

// looksLikeImage finds the files that only image archives have at their top.
func looksLikeImage(r io.Reader) (bool, error) {
	tr := tar.NewReader(r)
	for entries := 0; ; entries++ {
		hdr, err := tr.Next()
		if errors.Is(err, io.EOF) {
			if entries == 0 {
				return false, errors.New("the archive is empty: want a tar of a root file system, or of an image")
			}
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("not a tar archive: %w", err)
		}
		switch path.Clean(hdr.Name) {
		case ocispec.ImageLayoutFile, "manifest.json":
			return true, nil
		}
	}
}

// importRootFS makes an image of one layer.
func (s *Store) importRootFS(ctx context.Context, file *os.File, edit Edit) (ocispec.Descriptor, error) {
	layer, diffID, err := s.writeLayer(ctx, file)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	now := time.Now().UTC()
	config := ocispec.Image{
		Created:  &now,
		Platform: platforms.Normalize(platforms.DefaultSpec()),
		Config:   ocispec.ImageConfig{Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}},
		RootFS:   ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{diffID}},
		History:  []ocispec.History{{Created: &now, CreatedBy: "lighter import"}},
	}
	if err := edit.apply(&config); err != nil {
		return ocispec.Descriptor{}, err
	}
	return s.writeImage(ctx, config, []ocispec.Descriptor{layer})
}

// writeLayer compresses a tar into the content store.
func (s *Store) writeLayer(ctx context.Context, r io.Reader) (ocispec.Descriptor, digest.Digest, error) {
	w, err := content.OpenWriter(ctx, s.content, content.WithRef(fmt.Sprintf("import-%d", time.Now().UnixNano())))
	if err != nil {
		return ocispec.Descriptor{}, "", err
	}
	defer w.Close()
	diff := digest.Canonical.Digester()
	zw, err := gzip.NewWriterLevel(w, gzip.BestSpeed)
	if err != nil {
		return ocispec.Descriptor{}, "", err
	}
	if _, err := io.Copy(io.MultiWriter(zw, diff.Hash()), r); err != nil {
		return ocispec.Descriptor{}, "", err
	}
	if err := zw.Close(); err != nil {
		return ocispec.Descriptor{}, "", err
	}
	st, err := w.Status()
	if err != nil {
		return ocispec.Descriptor{}, "", err
	}
	labels := map[string]string{"containerd.io/uncompressed": diff.Digest().String()}
	if err := w.Commit(ctx, st.Offset, "", content.WithLabels(labels)); err != nil && !errdefs.IsAlreadyExists(err) {
		return ocispec.Descriptor{}, "", err
	}
	return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: w.Digest(), Size: st.Offset}, diff.Digest(), nil
}

func (s *Store) writeJSON(ctx context.Context, mediaType string, doc any, labels map[string]string) (ocispec.Descriptor, error) {
	raw, err := json.Marshal(doc)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(raw), Size: int64(len(raw))}
	err = content.WriteBlob(ctx, s.content, "import-"+desc.Digest.String(), bytes.NewReader(raw), desc, content.WithLabels(labels))
	return desc, err
}
