package images

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/pkg/archive/compression"
	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	// manifestFile is the index of archives that "docker save" makes.
	manifestFile = "manifest.json"
	// annotationName is where containerd and Docker keep a full name.
	annotationName = "io.containerd.image.name"
	// maxIndex bounds an index in an archive, in bytes.
	maxIndex = 8 << 20
)

// archived is an image of an archive, with the names that lead to it.
type archived struct {
	// id tells images of one archive apart.
	id string
	// names are as the archive has them.
	names []string
}

// dockerEntry is an element of manifest.json, of which nothing else is read here.
type dockerEntry struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// readArchive lists the images of an archive: of the OCI image layout, or of
// "docker save". One that holds both lists is read by the first.
func readArchive(r io.Reader) ([]archived, error) {
	plain, err := compression.DecompressStream(r)
	if err != nil {
		return nil, err
	}
	defer plain.Close()
	var index *ocispec.Index
	var entries []dockerEntry
	files := tar.NewReader(plain)
	for {
		header, err := files.Next()
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, fmt.Errorf("not a tar archive: %w", err)
		}
		switch path.Clean(header.Name) {
		case ocispec.ImageIndexFile:
			err = decodeFile(files, &index)
		case manifestFile:
			err = decodeFile(files, &entries)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", header.Name, err)
		}
	}
	switch {
	case index != nil:
		return fromIndex(*index), nil
	case entries != nil:
		return fromEntries(entries), nil
	}
	return nil, errNoIndex
}

// errNoIndex: an archive is none of images.
var errNoIndex = errors.New("there is neither index.json nor manifest.json in it: \"lighter import\" makes an image of a root file system")

func decodeFile(r io.Reader, into any) error {
	return json.NewDecoder(io.LimitReader(r, maxIndex)).Decode(into)
}

func fromIndex(index ocispec.Index) []archived {
	var found []archived
	for _, manifest := range index.Manifests {
		name := manifest.Annotations[annotationName]
		if name == "" {
			// Some tools write the whole name here, others the tag alone.
			if ref := manifest.Annotations[ocispec.AnnotationRefName]; strings.ContainsAny(ref, ":/") {
				name = ref
			}
		}
		found = add(found, manifest.Digest.String(), name)
	}
	return found
}

func fromEntries(entries []dockerEntry) []archived {
	var found []archived
	for _, entry := range entries {
		found = add(found, entry.Config, entry.RepoTags...)
	}
	return found
}

// add joins the names of one image.
func add(found []archived, id string, names ...string) []archived {
	i := slices.IndexFunc(found, func(a archived) bool { return a.id == id })
	if i < 0 {
		i = len(found)
		found = append(found, archived{id: id})
	}
	for _, name := range names {
		if _, err := reference.ParseNormalizedNamed(name); err == nil && !slices.Contains(found[i].names, name) {
			found[i].names = append(found[i].names, name)
		}
	}
	return found
}
