package main

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// registry is the read side of a registry (OCI distribution-spec) with one image, and
// counts every byte of blobs and manifests that leaves it.
type registry struct {
	host     string
	manifest ocispec.Descriptor
	size     int64 // of all blobs
	sent     atomic.Int64

	blobs  map[digest.Digest]string // files
	types  map[digest.Digest]string // media types
	server *http.Server
}

// newRegistry makes an image of layers with random bytes, which nothing compresses,
// on top of one with busybox, and serves it on a free port of the address.
func newRegistry(ctx context.Context, address, dir string, layers int, layerSize int64) (*registry, error) {
	r := &registry{blobs: map[digest.Digest]string{}, types: map[digest.Digest]string{}}
	if err := r.makeImage(dir, layers, layerSize); err != nil {
		return nil, fmt.Errorf("make the image: %w", err)
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort(address, "0"))
	if err != nil {
		return nil, err
	}
	r.host = listener.Addr().String()
	r.server = &http.Server{Handler: r, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = r.server.Serve(listener) }() // Close ends it
	return r, nil
}

// ref is the image's name.
func (r *registry) ref() string { return r.host + "/bench/large:v1" }

func (r *registry) makeImage(dir string, layers int, layerSize int64) error {
	program, err := os.ReadFile(busybox)
	if err != nil {
		return fmt.Errorf("%w: make guestbook-base puts it there", err)
	}
	config := ocispec.Image{Platform: platforms.DefaultSpec(), RootFS: ocispec.RootFS{Type: "layers"}}
	config.Config.Cmd = []string{"/busybox", "sleep", "1000000"}
	manifest := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest}
	for i := range layers + 1 {
		name, size, content := fmt.Sprint("random-", i), layerSize, rand.Reader
		if i == 0 {
			name, size, content = "busybox", int64(len(program)), strings.NewReader(string(program))
		}
		layer, diffID, err := r.makeLayer(dir, name, size, content)
		if err != nil {
			return err
		}
		manifest.Layers, config.RootFS.DiffIDs = append(manifest.Layers, layer), append(config.RootFS.DiffIDs, diffID)
	}
	if manifest.Config, err = r.addJSON(dir, ocispec.MediaTypeImageConfig, config); err != nil {
		return err
	}
	r.manifest, err = r.addJSON(dir, ocispec.MediaTypeImageManifest, manifest)
	return err
}

// makeLayer writes a layer with one file.
func (r *registry) makeLayer(dir, name string, size int64, content io.Reader) (ocispec.Descriptor, digest.Digest, error) {
	file, err := os.CreateTemp(dir, "layer-")
	if err != nil {
		return ocispec.Descriptor{}, "", err
	}
	defer file.Close()
	blob, diff := digest.Canonical.Digester(), digest.Canonical.Digester()
	packed := gzip.NewWriter(io.MultiWriter(file, blob.Hash()))
	archive := tar.NewWriter(io.MultiWriter(packed, diff.Hash()))
	if err := archive.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: size}); err != nil {
		return ocispec.Descriptor{}, "", err
	}
	_, err = io.CopyN(archive, content, size)
	if err := errors.Join(err, archive.Close(), packed.Close()); err != nil {
		return ocispec.Descriptor{}, "", err
	}
	desc, err := r.add(ocispec.MediaTypeImageLayerGzip, blob.Digest(), file.Name())
	return desc, diff.Digest(), err
}

func (r *registry) addJSON(dir, mediaType string, doc any) (ocispec.Descriptor, error) {
	raw, err := json.Marshal(doc)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	path := filepath.Join(dir, digest.FromBytes(raw).Encoded())
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		return ocispec.Descriptor{}, err
	}
	return r.add(mediaType, digest.FromBytes(raw), path)
}

func (r *registry) add(mediaType string, dgst digest.Digest, path string) (ocispec.Descriptor, error) {
	info, err := os.Stat(path)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	r.blobs[dgst], r.types[dgst] = path, mediaType
	r.size += info.Size()
	return ocispec.Descriptor{MediaType: mediaType, Digest: dgst, Size: info.Size()}, nil
}

// ServeHTTP answers GET and HEAD of manifests and blobs.
func (r *registry) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	dgst := digest.Digest(request.URL.Path[strings.LastIndex(request.URL.Path, "/")+1:])
	if dgst == "v1" {
		dgst = r.manifest.Digest
	}
	path, ok := r.blobs[dgst]
	if !ok {
		http.NotFound(w, request)
		return
	}
	file, err := os.Open(path)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer file.Close()
	w.Header().Set("Content-Type", r.types[dgst])
	w.Header().Set("Docker-Content-Digest", dgst.String())
	http.ServeContent(counted{w, &r.sent}, request, "", time.Time{}, file)
}

func (r *registry) close() error { return r.server.Close() }

// counted counts the bytes of a body.
type counted struct {
	http.ResponseWriter
	sent *atomic.Int64
}

func (c counted) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p)
	c.sent.Add(int64(n))
	return n, err
}
