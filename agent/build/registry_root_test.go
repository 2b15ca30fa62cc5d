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
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/docker/cli/cli/config"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"lighter.dev/lighter/agent/image"
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
	r := startRegistry(password)
	t.Cleanup(r.Close)
	return r
}

func startRegistry(password string) *registry {
	r := &registry{password: password, blobs: map[digest.Digest][]byte{}}
	r.Server = httptest.NewServer(r)
	return r
}

// hubMirror stands for Docker Hub, for as long as the process runs: BuildKit remembers
// for a while where a registry is.
var hubMirror = sync.OnceValue(func() *registry { return startRegistry("") })

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
	config := r.put(ocispec.Image{Platform: ocispec.Platform{Architecture: runtime.GOARCH, OS: "linux"}, RootFS: ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{blob.Digest}}})
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
	logOut(t)
	_, _, err := h.build(context.Background(), "private", dir)
	if err == nil || !strings.Contains(err.Error(), "401") || !strings.Contains(err.Error(), "wants credentials: log in (lighter login "+r.host()) {
		t.Errorf("without credentials: %v", err)
	}
	logIn(t, r.host())
	if _, out, err := h.build(context.Background(), "private", dir); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if got := h.read("private", "file"); got != "private" {
		t.Errorf("the base has %q", got)
	}
}

// logOut gives this process a Docker configuration without passwords.
func logOut(t *testing.T) {
	t.Helper()
	old := config.Dir()
	config.SetDir(t.TempDir())
	t.Cleanup(func() { config.SetDir(old) })
}

// logIn adds the password "secret" for a registry to it.
func logIn(t *testing.T, host string) {
	t.Helper()
	login := `{"auths": {"` + host + `": {"auth": "dXNlcjpzZWNyZXQ="}}}` // user:secret
	if err := os.WriteFile(filepath.Join(config.Dir(), "config.json"), []byte(login), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestDefaultRegistry: a base without a registry's name is an Image of the namespace,
// else one that is here, else the default registry's; Docker Hub's is written out.
func TestDefaultRegistry(t *testing.T) {
	needRoot(t)
	r, known := newRegistry(t, "secret"), declared{}
	r.serve(t, "version", "registry")
	hubMirror().serve(t, "version", "hub")
	h := &host{t: t, root: t.TempDir(), api: newFakeAPI(), events: &events{}, builds: known}
	h.changeStore = func(cfg *image.Config) {
		cfg.DefaultRegistry = r.host()
		cfg.Registries = map[string]image.Registry{hub: {Mirrors: []string{hubMirror().URL}}}
	}
	h.start()
	t.Cleanup(h.stop)
	logOut(t)
	logIn(t, r.host())
	h.image("own", nil)
	h.image("shop", nil)
	build := func(name, dockerfile string, pull bool) (digest.Digest, error) {
		t.Helper()
		cfg := h.client(name, folder(t, map[string]string{"Dockerfile": dockerfile, "version": "own"}), nil)
		cfg.Pull = pull
		res, err := buildPlain(t, cfg)
		return res.Digest, err
	}
	wants := func(what, dockerfile string, pull bool, want string) {
		t.Helper()
		if _, err := build("shop", dockerfile, pull); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if got := h.read("shop", "version"); got != want {
			t.Errorf("%s: the base is %q, want %q", what, got, want)
		}
	}
	wants("no registry", "FROM base\nCOPY version /f\n", false, "registry")
	wants("copied from", "FROM scratch\nCOPY --from=team/base:v1 /version /version\n", false, "registry")
	wants("Docker Hub's", "ARG HOST=docker.io/\nFROM ${HOST}base\nCOPY version /f\n", false, "hub")
	h.base()
	wants("an image that is here", "FROM busybox\nRUN echo -n here > /version\n", false, "here")
	wants("one that is here, and --pull", "FROM busybox\nCOPY version /f\n", true, "registry")
	own, err := build("own", "FROM scratch\nCOPY version /version\n", false)
	if err != nil {
		t.Fatal(err)
	}
	known["docker.io/library/base:latest"] = own.String()
	wants("an Image of the cluster", "FROM base\nCOPY version /f\n", true, "own")
}
