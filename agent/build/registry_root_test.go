package build

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/docker/cli/cli/config"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// registry serves one image by one name (OCI distribution-spec), to those who
// know the password if it has one.
type registry struct {
	*httptest.Server
	password string

	mu       sync.Mutex
	blobs    map[digest.Digest][]byte
	manifest digest.Digest
	asked    int // for manifests
}

func newRegistry(t *testing.T, password string) *registry {
	r := &registry{password: password, blobs: map[digest.Digest][]byte{}}
	r.Server = httptest.NewServer(r)
	t.Cleanup(r.Close)
	return r
}

// host is the registry's part of image names.
func (r *registry) host() string { return strings.TrimPrefix(r.URL, "http://") }

func (r *registry) put(v any) ocispec.Descriptor {
	raw, ok := v.([]byte)
	if !ok {
		raw, _ = json.Marshal(v) // types of the image-spec
	}
	d := digest.FromBytes(raw)
	r.blobs[d] = raw
	return ocispec.Descriptor{Digest: d, Size: int64(len(raw))}
}

// serve makes an image with one file the registry's.
func (r *registry) serve(t *testing.T, name, text string) {
	t.Helper()
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(text))}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	blob := r.put(layer.Bytes())
	blob.MediaType = ocispec.MediaTypeImageLayer
	config := r.put(ocispec.Image{Platform: ocispec.Platform{Architecture: "amd64", OS: "linux"}, RootFS: ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{blob.Digest}}})
	config.MediaType = ocispec.MediaTypeImageConfig
	r.manifest = r.put(ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Config: config, Layers: []ocispec.Descriptor{blob}}).Digest
}

func (r *registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if _, password, _ := req.BasicAuth(); password != r.password {
		w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	last := req.URL.Path[strings.LastIndexByte(req.URL.Path, '/')+1:]
	d := digest.Digest(last)
	if strings.Contains(req.URL.Path, "/manifests/") {
		r.asked++
		if d.Validate() != nil {
			d = r.manifest
		}
		w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
		w.Header().Set("Docker-Content-Digest", d.String())
	}
	if blob, ok := r.blobs[d]; ok {
		_, _ = w.Write(blob)
		return
	}
	http.NotFound(w, req)
}

// TestPull: a base image that is here is not asked for again, unless --pull says
// so; an image of the cluster's own never is.
func TestPull(t *testing.T) {
	needRoot(t)
	known := declared{}
	h := &host{t: t, root: t.TempDir(), api: newFakeAPI(), events: &events{}, builds: known}
	h.start()
	t.Cleanup(h.stop)
	r := newRegistry(t, "")
	r.serve(t, "version", "one")
	h.image("pulled", nil)
	build := func(pull bool) string {
		t.Helper()
		cfg := h.client("pulled", folder(t, map[string]string{"Dockerfile": "FROM " + r.host() + "/base:v1\nCOPY f /f\n", "f": "x"}), nil)
		cfg.Pull = pull
		if _, err := buildPlain(t, cfg); err != nil {
			t.Fatal(err)
		}
		return h.read("pulled", "version")
	}
	if got := build(false); got != "one" {
		t.Errorf("the base is %q", got)
	}
	r.serve(t, "version", "two")
	if got := build(true); got != "two" {
		t.Errorf("with --pull the base is %q", got)
	}
	h.image("own", nil)
	res, out, err := h.build(context.Background(), "own", folder(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY version /version\n", "version": "own"}))
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	known[r.host()+"/base:v1"] = res.Digest.String()
	before := r.asked
	if got := build(true); got != "own" || r.asked != before {
		t.Errorf("an Image of the cluster: %q, and the registry was asked %d times", got, r.asked-before)
	}
}

// TestRegistryCredentials are those of the client's Docker configuration.
func TestRegistryCredentials(t *testing.T) {
	h := newHost(t)
	r := newRegistry(t, "secret")
	r.serve(t, "file", "private")
	h.image("private", nil)
	dir := folder(t, map[string]string{"Dockerfile": "FROM " + r.host() + "/base\nCOPY f /f\n", "f": "x"})
	docker, old := t.TempDir(), config.Dir()
	config.SetDir(docker)
	t.Cleanup(func() { config.SetDir(old) })
	_, _, err := h.build(context.Background(), "private", dir)
	if err == nil || !strings.Contains(err.Error(), "401") {
		t.Errorf("without credentials: %v", err)
	}
	login := `{"auths": {"` + r.host() + `": {"auth": "dXNlcjpzZWNyZXQ="}}}` // user:secret
	if err := os.WriteFile(filepath.Join(docker, "config.json"), []byte(login), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, out, err := h.build(context.Background(), "private", dir); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if got := h.read("private", "file"); got != "private" {
		t.Errorf("the base has %q", got)
	}
}
