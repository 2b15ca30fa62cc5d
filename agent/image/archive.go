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
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/images/archive"
	"github.com/containerd/containerd/v2/pkg/archive/compression"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Import reads an archive and gives what is in it the name: a tar of a root
// file system (as "docker import"), or an OCI or Docker archive of one image
// (as "docker load"), each plain or compressed by gzip or zstd.
func (s *Store) Import(ctx context.Context, r io.Reader, name string) (Image, error) {
	ctx = s.in(ctx)
	full, pin, err := Normalize(name)
	if err != nil {
		return Image{}, err
	}
	if pin != "" {
		return Image{}, fmt.Errorf("%w: %q: an import cannot choose its digest", ErrInvalidName, name)
	}
	file, isImage, err := s.spool(r)
	if err != nil {
		return Image{}, fmt.Errorf("import %s: %w", name, err)
	}
	defer func() { file.Close(); os.Remove(file.Name()) }()
	ctx, release, err := s.withLease(ctx, leasePull)
	if err != nil {
		return Image{}, err
	}
	defer release()
	var target ocispec.Descriptor
	if isImage {
		target, err = s.importArchive(ctx, file)
	} else {
		target, err = s.importRootFS(ctx, file)
	}
	if err == nil {
		err = s.fetchAndUnpack(ctx, job{sub: subject{name: full}, target: target}, nil)
	}
	if err != nil {
		return Image{}, fmt.Errorf("import %s: %w", name, err)
	}
	img, err := s.inspect(ctx, full, target)
	if err != nil {
		return Image{}, fmt.Errorf("import %s: %w", name, err)
	}
	return img, s.record(ctx, full, target, false, OriginImport)
}

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

// importArchive reads an OCI or Docker archive. It has to hold one image.
func (s *Store) importArchive(ctx context.Context, r io.Reader) (ocispec.Descriptor, error) {
	index, err := archive.ImportIndex(ctx, s.content, r, archive.WithImportCompression())
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	var idx ocispec.Index
	if err := readJSON(ctx, s.content, index, &idx); err != nil {
		return ocispec.Descriptor{}, err
	}
	found := map[digest.Digest]ocispec.Descriptor{}
	for _, m := range idx.Manifests {
		if images.IsManifestType(m.MediaType) || images.IsIndexType(m.MediaType) {
			found[m.Digest] = ocispec.Descriptor{MediaType: m.MediaType, Digest: m.Digest, Size: m.Size}
		}
	}
	if len(found) != 1 {
		return ocispec.Descriptor{}, fmt.Errorf("the archive holds %d images, want one: import them one by one", len(found))
	}
	for _, desc := range found {
		return desc, nil
	}
	return ocispec.Descriptor{}, errdefs.ErrNotFound
}

// importRootFS makes an image of one layer.
func (s *Store) importRootFS(ctx context.Context, file *os.File) (ocispec.Descriptor, error) {
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
	configDesc, err := s.writeJSON(ctx, ocispec.MediaTypeImageConfig, config, nil)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	manifest := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest,
		Config:    configDesc,
		Layers:    []ocispec.Descriptor{layer},
	}
	return s.writeJSON(ctx, ocispec.MediaTypeImageManifest, manifest, map[string]string{
		"containerd.io/gc.ref.content.config": configDesc.Digest.String(),
		"containerd.io/gc.ref.content.l.0":    layer.Digest.String(),
	})
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

// Export writes images of this host as one archive that both OCI tools and
// Docker can load.
func (s *Store) Export(ctx context.Context, w io.Writer, refs ...string) error {
	ctx = s.in(ctx)
	opts := []archive.ExportOpt{archive.WithPlatform(s.platform)}
	for _, ref := range refs {
		name, pin, err := Normalize(ref)
		if err != nil {
			return err
		}
		rec, err := s.local(ctx, subject{name: name}, pin)
		if err != nil {
			return fmt.Errorf("export: image %s is not on this host: %w", ref, err)
		}
		opts = append(opts, archive.WithManifest(rec.Target, name))
	}
	if err := archive.Export(ctx, s.content, w, opts...); err != nil {
		return fmt.Errorf("export %v: %w", refs, err)
	}
	return nil
}
