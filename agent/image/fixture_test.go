package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/platforms"
	"github.com/moby/sys/mountinfo"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// needRoot skips where file systems cannot be mounted, and says why.
func needRoot(t testing.TB) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("the image store needs root: it mounts overlayfs")
	}
}

// open opens a Store in a new folder.
func open(t testing.TB, change func(*Config)) *Store {
	t.Helper()
	needRoot(t)
	cfg := Config{Root: t.TempDir(), Log: slog.New(slog.NewTextHandler(logWriter{t}, nil))}
	if change != nil {
		change(&cfg)
	}
	s, err := Open(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

type logWriter struct{ t testing.TB }

func (w logWriter) Write(p []byte) (int, error) {
	w.t.Logf("%s", bytes.TrimRight(p, "\n"))
	return len(p), nil
}

// tally counts what the store holds.
type tally struct{ Blobs, Ingests, Snapshots, Leases, Records, Mounts, BlobFiles, SnapshotDirs int }

func count(t testing.TB, s *Store) tally {
	t.Helper()
	ctx := s.in(context.Background())
	if err := s.GC(ctx); err != nil {
		t.Fatal(err)
	}
	var n tally
	must(t, s.content.Walk(ctx, func(content.Info) error { n.Blobs++; return nil }))
	ingests, err := s.content.ListStatuses(ctx)
	must(t, err)
	n.Ingests = len(ingests)
	must(t, s.snap.Walk(ctx, func(context.Context, snapshots.Info) error { n.Snapshots++; return nil }))
	leases, err := s.leases.List(ctx)
	must(t, err)
	n.Leases = len(leases)
	recs, err := s.images.List(ctx)
	must(t, err)
	n.Records = len(recs)
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(s.cfg.Root))
	must(t, err)
	n.Mounts = len(mounts)
	n.BlobFiles = entries(t, filepath.Join(s.cfg.Root, "content", "blobs", "sha256"))
	n.SnapshotDirs = entries(t, filepath.Join(s.cfg.Root, "snapshots-"+s.cfg.Snapshotter, "snapshots"))
	return n
}

func entries(t testing.TB, dir string) int {
	t.Helper()
	all, err := os.ReadDir(dir)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return len(all)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// tarOf makes a tar archive; a nil body is a folder, a name "x -> y" a link.
func tarOf(t testing.TB, files map[string]string) []byte {
	t.Helper()
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	for name, body := range files {
		hdr := &tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(body)), ModTime: time.Unix(1, 0)}
		if strings.HasSuffix(name, "/") {
			hdr.Typeflag = tar.TypeDir
		}
		must(t, tw.WriteHeader(hdr))
		_, err := tw.Write([]byte(body))
		must(t, err)
	}
	must(t, tw.Close())
	return buf.Bytes()
}

// fixture is an image in memory.
type fixture struct {
	blobs    map[digest.Digest][]byte
	manifest ocispec.Descriptor
	layers   []ocispec.Descriptor
}

// newFixture makes an image with one layer per set of files.
func newFixture(t testing.TB, layers ...map[string]string) *fixture {
	t.Helper()
	f := &fixture{blobs: map[digest.Digest][]byte{}}
	cfg := ocispec.Image{Platform: platforms.DefaultSpec(), RootFS: ocispec.RootFS{Type: "layers"}}
	cfg.Config.Cmd = []string{"/run"}
	for _, files := range layers {
		plain := tarOf(t, files)
		cfg.RootFS.DiffIDs = append(cfg.RootFS.DiffIDs, digest.FromBytes(plain))
		var zipped bytes.Buffer
		zw := gzip.NewWriter(&zipped)
		_, err := zw.Write(plain)
		must(t, err)
		must(t, zw.Close())
		f.layers = append(f.layers, f.add(ocispec.MediaTypeImageLayerGzip, zipped.Bytes()))
	}
	manifest := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Layers: f.layers}
	manifest.Config = f.addJSON(t, ocispec.MediaTypeImageConfig, cfg)
	f.manifest = f.addJSON(t, ocispec.MediaTypeImageManifest, manifest)
	return f
}

func (f *fixture) add(mediaType string, raw []byte) ocispec.Descriptor {
	d := digest.FromBytes(raw)
	f.blobs[d] = raw
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(raw))}
}

func (f *fixture) addJSON(t testing.TB, mediaType string, doc any) ocispec.Descriptor {
	t.Helper()
	raw, err := json.Marshal(doc)
	must(t, err)
	return f.add(mediaType, raw)
}

// random is text that gzip cannot shrink much.
func random(n int) string {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(uint64(n), 7))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return string(b)
}

// fakeRegistry is the read side of a registry, with faults to order.
type fakeRegistry struct {
	mu    sync.Mutex
	image *fixture
	gets  map[string]int // requests by path
	fault func(w http.ResponseWriter, r *http.Request, body []byte) bool
}

func (f *fakeRegistry) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	if f.gets == nil {
		f.gets = map[string]int{}
	}
	f.gets[r.Method+" "+r.URL.Path]++
	img, fault := f.image, f.fault
	f.mu.Unlock()
	_, last, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/v2/"), "/")
	kind, ref, _ := strings.Cut(last, "/")
	mediaType := "application/octet-stream"
	dgst := digest.Digest(ref)
	if kind == "manifests" {
		mediaType = img.manifest.MediaType
		if ref == "v1" {
			dgst = img.manifest.Digest
		}
	}
	body, ok := img.blobs[dgst]
	if !ok {
		http.Error(w, `{"errors":[{"code":"MANIFEST_UNKNOWN"}]}`, http.StatusNotFound)
		return
	}
	if fault != nil && fault(w, r, body) {
		return
	}
	w.Header().Set("Content-Type", mediaType)
	w.Header().Set("Docker-Content-Digest", dgst.String())
	w.Header().Set("Content-Length", fmt.Sprint(len(body)))
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
}

// requests counts GETs of one blob.
func (f *fakeRegistry) requests(d digest.Digest) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for path, c := range f.gets {
		if strings.HasPrefix(path, "GET") && strings.HasSuffix(path, d.String()) {
			n += c
		}
	}
	return n
}

func needProgram(t testing.TB, name, pkg string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is missing: install the package %s", name, pkg)
	}
	return path
}
