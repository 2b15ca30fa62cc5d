package pod_test

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// applets are the commands the test image has.
var applets = []string{"sh", "sleep", "cat", "echo", "test", "true", "false", "ls", "id", "touch", "hostname", "env", "nc", "httpd", "trap", "kill"}

// busyboxArchive is an OCI image layout with the host's static busybox, as a tar.
func busyboxArchive(t testing.TB) *bytes.Reader {
	t.Helper()
	binary, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Skipf("needs a static busybox (package busybox-static): %v", err)
	}
	layer := tarOf(t, func(w *tar.Writer) {
		for _, dir := range []string{"bin", "etc", "tmp", "data"} {
			write(t, w, &tar.Header{Name: dir + "/", Typeflag: tar.TypeDir, Mode: 0o755}, nil)
		}
		write(t, w, &tar.Header{Name: "bin/busybox", Mode: 0o755, Size: int64(len(binary))}, binary)
		for _, a := range applets {
			write(t, w, &tar.Header{Name: "bin/" + a, Typeflag: tar.TypeSymlink, Linkname: "busybox"}, nil)
		}
	})
	config := marshal(t, ocispec.Image{
		Platform: ocispec.Platform{Architecture: runtime.GOARCH, OS: "linux"},
		Config:   ocispec.ImageConfig{Env: []string{"PATH=/bin"}, Cmd: []string{"sh"}},
		RootFS:   ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.FromBytes(layer)}},
	})
	manifest := marshal(t, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: descriptor(ocispec.MediaTypeImageConfig, config),
		Layers: []ocispec.Descriptor{descriptor(ocispec.MediaTypeImageLayer, layer)},
	})
	entry := descriptor(ocispec.MediaTypeImageManifest, manifest)
	entry.Platform = &ocispec.Platform{Architecture: runtime.GOARCH, OS: "linux"}
	entry.Annotations = map[string]string{ocispec.AnnotationRefName: "latest", "io.containerd.image.name": "docker.io/library/busybox:latest"}
	index := marshal(t, ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{entry}})
	layout := tarOf(t, func(w *tar.Writer) {
		file := func(name string, data []byte) {
			write(t, w, &tar.Header{Name: name, Mode: 0o644, Size: int64(len(data))}, data)
		}
		file(ocispec.ImageLayoutFile, marshal(t, ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion}))
		for _, blob := range [][]byte{layer, config, manifest} {
			file(fmt.Sprintf("blobs/sha256/%x", sha256.Sum256(blob)), blob)
		}
		file(ocispec.ImageIndexFile, index)
	})
	return bytes.NewReader(layout)
}

func descriptor(mediaType string, data []byte) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
}

func marshal(t testing.TB, v any) []byte {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func tarOf(t testing.TB, fill func(*tar.Writer)) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	fill(w)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func write(t testing.TB, w *tar.Writer, h *tar.Header, data []byte) {
	t.Helper()
	if err := w.WriteHeader(h); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
}
