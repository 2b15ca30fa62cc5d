package image

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/images/archive"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Import reads an archive and gives what is in it the name: a tar of a root
// file system (as "docker import"), or an OCI or Docker archive (as "docker load")
// of which choice names one image, or "" the only one; each plain or compressed by
// gzip or zstd.
func (s *Store) Import(ctx context.Context, r io.Reader, name, choice string) (Image, error) {
	ctx = s.in(ctx)
	full, pin, err := Normalize(name)
	if err != nil {
		return Image{}, err
	}
	if pin != "" {
		return Image{}, fmt.Errorf("%w: %q: an import cannot choose its digest", ErrInvalidName, name)
	}
	ctx, release, err := s.withLease(ctx, leasePull)
	if err != nil {
		return Image{}, err
	}
	defer release()
	target, err := s.ImportContent(ctx, r, choice, Edit{})
	if err != nil {
		return Image{}, fmt.Errorf("import %s: %w", name, err)
	}
	img, err := s.inspect(ctx, full, target)
	if err != nil {
		return Image{}, fmt.Errorf("import %s: %w", name, err)
	}
	return img, s.record(ctx, full, target, false, OriginImport)
}

// ImportContent is Import without a name: what it makes is kept by the lease of ctx
// alone, see Lease. The archive is read to its end first. Only an image of a root
// file system can be edited: another would no longer be the one that was sent.
func (s *Store) ImportContent(ctx context.Context, r io.Reader, choice string, edit Edit) (ocispec.Descriptor, error) {
	ctx = s.in(ctx)
	file, isImage, err := s.spool(r)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer func() { file.Close(); os.Remove(file.Name()) }()
	var target ocispec.Descriptor
	switch {
	case isImage && !edit.empty():
		err = classify(errdefs.ErrInvalidArgument, "the archive is of an image, which is taken as it is: changes are for root file systems")
	case isImage:
		target, err = s.importArchive(ctx, file, choice)
	case choice != "":
		err = classify(errdefs.ErrInvalidArgument, "the archive is of a root file system: there is no image %s in it to choose", choice)
	default:
		target, err = s.importRootFS(ctx, file, edit)
	}
	if err == nil {
		err = s.fetchAndUnpack(ctx, job{target: target}, nil)
	}
	return target, err
}

// importArchive reads an OCI or Docker archive and returns one image of it.
func (s *Store) importArchive(ctx context.Context, r io.Reader, choice string) (ocispec.Descriptor, error) {
	index, err := archive.ImportIndex(ctx, s.content, r, archive.WithImportCompression())
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	var idx ocispec.Index
	if err := readJSON(ctx, s.content, index, &idx); err != nil {
		return ocispec.Descriptor{}, err
	}
	return choose(idx.Manifests, choice)
}

// choose finds the image that choice means among those of an archive. It is pure.
func choose(manifests []ocispec.Descriptor, choice string) (ocispec.Descriptor, error) {
	var want string
	var pin digest.Digest
	if choice != "" {
		var err error
		if want, pin, err = Normalize(choice); err != nil {
			return ocispec.Descriptor{}, err
		}
	}
	all := map[digest.Digest]bool{}
	found := map[digest.Digest]ocispec.Descriptor{}
	var names []string
	for _, m := range manifests {
		if !images.IsManifestType(m.MediaType) && !images.IsIndexType(m.MediaType) {
			continue
		}
		name := cmp.Or(m.Annotations[images.AnnotationImageName], m.Annotations[ocispec.AnnotationRefName])
		full, _, err := Normalize(name)
		if err != nil {
			full = name // a tag alone, which is all that some tools write
		}
		all[m.Digest] = true
		names = append(names, cmp.Or(name, m.Digest.String()))
		if choice == "" || m.Digest == pin || pin == "" && (full == want || name == choice) {
			found[m.Digest] = ocispec.Descriptor{MediaType: m.MediaType, Digest: m.Digest, Size: m.Size}
		}
	}
	for _, desc := range found {
		if len(found) == 1 {
			return desc, nil
		}
	}
	slices.Sort(names)
	list := strings.Join(slices.Compact(names), ", ")
	switch {
	case len(all) == 0:
		return ocispec.Descriptor{}, classify(errdefs.ErrInvalidArgument, "the archive holds no image")
	case choice == "":
		return ocispec.Descriptor{}, classify(errdefs.ErrInvalidArgument, "the archive holds %d images, choose one: %s", len(all), list)
	default:
		return ocispec.Descriptor{}, classify(errdefs.ErrInvalidArgument, "the archive holds no image %s, only: %s", choice, list)
	}
}

// Save writes images of this host, as a namespace knows them, as one archive that
// both OCI tools and Docker can load. It writes nothing if one is missing.
func (s *Store) Save(ctx context.Context, w io.Writer, namespace string, refs ...string) error {
	ctx, release, err := s.withLease(s.in(ctx), leasePull)
	if err != nil {
		return err
	}
	defer release()
	opts := []archive.ExportOpt{archive.WithPlatform(s.platform)}
	var targets []ocispec.Descriptor
	for _, ref := range refs {
		name, rec, err := s.lookup(ctx, namespace, ref)
		if err == nil {
			_, err = s.inspect(ctx, name, rec.Target) // all of it
		}
		if err == nil {
			err = s.hold(ctx, rec.Target)
		}
		if err != nil {
			return fmt.Errorf("save %s: %w", ref, err)
		}
		targets = append(targets, rec.Target)
		if tagged(name) {
			opts = append(opts, archive.WithManifest(rec.Target, name))
		} else {
			opts = append(opts, archive.WithManifest(rec.Target))
		}
	}
	if err := archive.Export(ctx, s.content, w, opts...); err != nil {
		errs := []error{fmt.Errorf("save %v: %w", refs, err)}
		for _, target := range targets {
			if ctx.Err() == nil {
				errs = append(errs, s.dropDamaged(ctx, target))
			}
		}
		return errors.Join(errs...)
	}
	return nil
}
