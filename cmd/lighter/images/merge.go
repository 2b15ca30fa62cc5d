package images

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"

	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// merger writes several archives of images as one: an OCI image layout that
// "docker load" reads, too. Blobs that they share are written once.
type merger struct {
	w       *tar.Writer
	written map[string]bool
	index   ocispec.Index
	entries []dockerEntry
}

func newMerger(w io.Writer) *merger {
	return &merger{w: tar.NewWriter(w), written: map[string]bool{}, index: ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{},
	}}
}

// add copies the files of an archive of one image, and keeps its indexes for the end,
// with these names: the archive of an Image object has all that the object declares.
func (m *merger) add(archive io.Reader, names []string) error {
	files := tar.NewReader(archive)
	for {
		header, err := files.Next()
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("read the archive: %w", err)
		}
		name := path.Clean(header.Name)
		switch {
		case name == ocispec.ImageIndexFile:
			var index ocispec.Index
			if err := decodeFile(files, &index); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			m.index.Manifests = append(m.index.Manifests, nameManifests(index.Manifests, names)...)
		case name == manifestFile:
			var entries []dockerEntry
			if err := decodeFile(files, &entries); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			m.entries = append(m.entries, nameEntries(entries, names)...)
		case m.written[name]:
		default:
			m.written[name] = true
			if err := m.copy(header, files); err != nil {
				return err
			}
		}
	}
}

// nameManifests gives each manifest of an index these names, as containerd and Docker
// write them.
func nameManifests(manifests []ocispec.Descriptor, names []string) []ocispec.Descriptor {
	var named []ocispec.Descriptor
	seen := map[digest.Digest]bool{}
	for _, m := range manifests {
		if seen[m.Digest] {
			continue // the same under another name
		}
		seen[m.Digest] = true
		m.Annotations = maps.Clone(m.Annotations)
		delete(m.Annotations, annotationName)
		delete(m.Annotations, ocispec.AnnotationRefName)
		if len(names) == 0 {
			named = append(named, m)
		}
		for _, name := range names {
			copied := m
			copied.Annotations = map[string]string{annotationName: name, ocispec.AnnotationRefName: familiar(name)[1]}
			maps.Copy(copied.Annotations, m.Annotations)
			named = append(named, copied)
		}
	}
	return named
}

// nameEntries is nameManifests for manifest.json.
func nameEntries(entries []dockerEntry, names []string) []dockerEntry {
	for i := range entries {
		entries[i].RepoTags = nil
		for _, name := range names {
			entries[i].RepoTags = append(entries[i].RepoTags, shortName(name))
		}
		if entries[i].Layers == nil {
			entries[i].Layers = []string{} // readers take null for a damaged archive
		}
	}
	return entries
}

func (m *merger) copy(header *tar.Header, r io.Reader) error {
	if err := m.w.WriteHeader(header); err != nil {
		return err
	}
	_, err := io.Copy(m.w, r) //nolint:gosec // an archive that is copied, not unpacked
	return err
}

// close writes the indexes and ends the archive.
func (m *merger) close() error {
	if err := m.document(ocispec.ImageIndexFile, m.index); err != nil {
		return err
	}
	if len(m.entries) > 0 {
		if err := m.document(manifestFile, m.entries); err != nil {
			return err
		}
	}
	return m.w.Close()
}

func (m *merger) document(name string, doc any) error {
	content, err := json.Marshal(doc)
	if err != nil {
		return err
	}
	if err := m.w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content)), Typeflag: tar.TypeReg}); err != nil {
		return err
	}
	_, err = m.w.Write(content)
	return err
}
