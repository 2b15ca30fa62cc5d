package image

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/pkg/archive/compression"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"lighter.dev/lighter/api/agentapi"
)

// tracedRegistry is a real registry behind a proxy that notes what is asked, and
// may break it: fault answers instead if it returns true.
type tracedRegistry struct {
	host  string
	fault func(w http.ResponseWriter, r *http.Request) bool

	mu    sync.Mutex
	asked []string
}

func traced(t testing.TB) *tracedRegistry {
	t.Helper()
	behind, _ := realRegistry(t, "")
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: behind})
			r.Out.Host = r.In.Host // its answers name the proxy
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
	}
	reg := &tracedRegistry{}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		reg.mu.Lock()
		fault := reg.fault
		reg.mu.Unlock()
		if fault != nil && fault(w, r) {
			return
		}
		kept := &keptStatus{ResponseWriter: w}
		proxy.ServeHTTP(kept, r)
		reg.mu.Lock()
		defer reg.mu.Unlock()
		reg.asked = append(reg.asked, fmt.Sprint(r.Method, " ", r.URL.RequestURI(), " ", kept.code))
	}))
	t.Cleanup(srv.Close)
	reg.host = srv.Listener.Addr().String()
	return reg
}

type keptStatus struct {
	http.ResponseWriter
	code int
}

func (k *keptStatus) WriteHeader(code int) { k.code = code; k.ResponseWriter.WriteHeader(code) }

// count counts requests that contain all parts, and forgets them with all others.
func (r *tracedRegistry) count(parts ...string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, line := range r.asked {
		if !slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(line, p) }) {
			n++
		}
	}
	return n
}

func (r *tracedRegistry) reset(fault func(http.ResponseWriter, *http.Request) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked, r.fault = nil, fault
}

// stock pulls a fixture from a registry in memory.
func stock(t testing.TB, s *Store, fx *fixture) (ref string) {
	t.Helper()
	srv := httptest.NewServer(&fakeRegistry{image: fx})
	t.Cleanup(srv.Close)
	ref = srv.Listener.Addr().String() + "/x:v1"
	_, err := s.Ensure(context.Background(), Request{Ref: ref})
	must(t, err)
	return ref
}

// zstdFixture is a fixture whose layers are compressed by zstd.
func zstdFixture(t testing.TB, files map[string]string) *fixture {
	t.Helper()
	fx := newFixture(t, files)
	var zipped bytes.Buffer
	zw, err := compression.CompressStream(&zipped, compression.Zstd)
	must(t, err)
	_, err = zw.Write(tarOf(t, files))
	must(t, err)
	must(t, zw.Close())
	delete(fx.blobs, fx.layers[0].Digest)
	fx.layers[0] = fx.add(ocispec.MediaTypeImageLayerZstd, zipped.Bytes())
	fx.remake(t, ocispec.MediaTypeImageManifest)
	return fx
}

// dockerFixture has Docker's media types.
func dockerFixture(t testing.TB, files map[string]string) *fixture {
	t.Helper()
	fx := newFixture(t, files)
	fx.layers[0].MediaType = images.MediaTypeDockerSchema2LayerGzip
	fx.remake(t, images.MediaTypeDockerSchema2Manifest)
	return fx
}

// remake writes the manifest anew.
func (f *fixture) remake(t testing.TB, mediaType string) {
	t.Helper()
	var old ocispec.Manifest
	must(t, json.Unmarshal(f.blobs[f.manifest.Digest], &old))
	delete(f.blobs, f.manifest.Digest)
	old.MediaType, old.Layers = mediaType, f.layers
	if mediaType == images.MediaTypeDockerSchema2Manifest {
		old.Config.MediaType = images.MediaTypeDockerSchema2Config
	}
	f.manifest = f.addJSON(t, mediaType, old)
}

// indexFixture is an image for this platform and others, of which with whole false
// the registry shows the entry alone, as a pull for one platform does.
func indexFixture(t testing.TB, whole bool) (fx *fixture, own digest.Digest) {
	t.Helper()
	fx = newFixture(t, map[string]string{"a": "index"})
	mine := fx.manifest
	mine.Platform = &ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH}
	other := newFixture(t, map[string]string{"a": "other"})
	theirs := other.manifest
	theirs.Platform = &ocispec.Platform{OS: "linux", Architecture: "s390x"}
	idx := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{mine}}
	if !whole {
		idx.Manifests = append(idx.Manifests, theirs)
	}
	own = fx.manifest.Digest
	fx.manifest = fx.addJSON(t, ocispec.MediaTypeImageIndex, idx)
	return fx, own
}

// TestPushRoundTrip: what is pushed, removed and pulled again has the same digest
// and the same files, in every format.
func TestPushRoundTrip(t *testing.T) {
	reg := traced(t)
	partial, own := indexFixture(t, false)
	full, _ := indexFixture(t, true)
	tests := []struct {
		name string
		fx   *fixture
		want digest.Digest // if not the fixture's
		note string
	}{
		{"oci-gzip", newFixture(t, map[string]string{"a": "1"}, map[string]string{"b": random(300_000)}), "", ""},
		{"zstd", zstdFixture(t, map[string]string{"a": "zstd"}), "", ""},
		{"docker", dockerFixture(t, map[string]string{"a": "docker"}), "", ""},
		{"index", full, "", ""},
		{"index-of-others", partial, own, "was pushed instead of the index"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := open(t, nil)
			ctx := context.Background()
			from, to := stock(t, s, tt.fx), reg.host+"/trip/"+tt.name+":v1"
			var lines progressLog
			res, err := s.Push(ctx, "", from, to, nil, lines.add)
			must(t, err)
			want := tt.fx.manifest.Digest
			if tt.want != "" {
				want = tt.want
			}
			if res.Name != to || res.Digest != want.String() || res.Size == 0 || !lines.has(tt.note) {
				t.Errorf("pushed %+v, want %s; progress %v", res, want, lines.all)
			}
			removed, err := s.RemoveImage(ctx, from, false)
			must(t, err)
			if len(removed.Deleted) != 1 || removed.Reclaimed == 0 || count(t, s).Blobs != 0 {
				t.Errorf("removed %+v; left %+v", removed, count(t, s))
			}
			got, err := s.Pull(ctx, "", to, nil, lines.add)
			must(t, err)
			if got.Digest != want.String() || !lines.has("Download complete") {
				t.Errorf("pulled %s, pushed %s; progress %v", got.Digest, want, lines.all)
			}
			var out bytes.Buffer
			must(t, s.Save(ctx, &out, "", to))
			other := open(t, nil)
			loaded, err := other.Import(ctx, &out, "loaded", "")
			must(t, err)
			if img, err := s.Get(ctx, "", to); err != nil || img.Manifest != loaded.Manifest {
				t.Errorf("saved %v, loaded %v, %v", img.Manifest, loaded.Manifest, err)
			}
		})
	}
}

// progressLog keeps lines of progress.
type progressLog struct {
	mu  sync.Mutex
	all []agentapi.Progress
}

func (l *progressLog) add(p agentapi.Progress) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, p)
}

func (l *progressLog) has(status string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return status == "" || slices.ContainsFunc(l.all, func(p agentapi.Progress) bool { return strings.Contains(p.Status, status) })
}

// TestPushMounts: a layer that the registry has in another repository is not sent
// again, whether this host pushed it or pulled it.
func TestPushMounts(t *testing.T) {
	reg := traced(t)
	ctx := context.Background()
	fx := newFixture(t, map[string]string{"a": random(500_000)}, map[string]string{"b": "2"})
	first := open(t, nil)
	_, err := first.Push(ctx, "", stock(t, first, fx), reg.host+"/team/one:v1", nil, nil)
	must(t, err)
	if n := reg.count("PUT /v2/team/one/blobs/"); n != 3 {
		t.Fatalf("%d blobs were sent the first time, want 3", n)
	}
	second := open(t, nil)
	_, err = second.Pull(ctx, "", reg.host+"/team/one:v1", nil, nil)
	must(t, err)
	for i, s := range []*Store{first, second} {
		reg.reset(nil)
		var lines progressLog
		to := fmt.Sprintf("team/copy%d", i)
		// The second push is of the same blobs to a name where they are already.
		for range 2 {
			ref := "sha256:" + fx.manifest.Digest.Encoded()
			if _, err := s.Push(ctx, "", ref, reg.host+"/"+to+":v1", nil, lines.add); err != nil {
				t.Fatal(err)
			}
		}
		if mounted, sent := reg.count("POST", "mount=sha256", "from=team", " 201"), reg.count("PUT", "/blobs/"); mounted != 3 || sent != 0 {
			t.Errorf("store %d: %d blobs mounted, %d sent\n%s", i, mounted, sent, strings.Join(reg.asked, "\n"))
		}
		if !lines.has("Mounted from "+reg.host) && !lines.has("Mounted from 127.0.0.1") || !lines.has("Layer already exists") {
			t.Errorf("progress: %+v", lines.all)
		}
	}
}

func TestPushRefused(t *testing.T) {
	reg := passwordRegistry(t)
	denying := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodHead {
			http.Error(w, "", http.StatusNotFound)
			return
		}
		w.WriteHeader(http.StatusForbidden)
		_, _ = io.WriteString(w, `{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}`)
	}))
	defer denying.Close()
	deniedHost := denying.Listener.Addr().String()
	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	gone := nobody.Addr().String()
	must(t, nobody.Close())
	s := open(t, func(c *Config) { c.Registries = map[string]Registry{reg.host: {CAFile: reg.caFile}} })
	from := stock(t, s, newFixture(t, map[string]string{"a": "1"}))
	ann := func(host, password string) []agentapi.Credential {
		return []agentapi.Credential{{Host: host, Username: "ann", Password: password}}
	}
	tests := []struct {
		name, to string
		auth     []agentapi.Credential
		kind     func(error) bool
		text     string // of the error; "" is success
	}{
		{"right password", reg.host + "/team/shop:v1", ann(reg.host, "secret"), nil, ""},
		{"wrong password", reg.host + "/team/shop:v2", ann(reg.host, "wrong"), errdefs.IsPermissionDenied, `refused user "ann": the password is wrong`},
		{"second of two", reg.host + "/team/shop:v3", append(ann(reg.host, "wrong"), ann(reg.host, "secret")...), nil, ""},
		{"no password", reg.host + "/team/shop:v4", nil, errdefs.IsPermissionDenied, "wants credentials: log in"},
		{"for another registry", reg.host + "/team/shop:v5", ann("other.example", "secret"), errdefs.IsPermissionDenied, "wants credentials"},
		{"no right to push", deniedHost + "/team/shop:v1", ann(deniedHost, "secret"), errdefs.IsPermissionDenied, "may not push there"},
		{"nobody answers", gone + "/team/shop:v1", nil, errdefs.IsUnavailable, "cannot be reached"},
		{"by digest", reg.host + "/team/shop@" + digest.FromString("x").String(), nil, errdefs.IsInvalidArgument, "needs a name with a tag"},
	}
	before := count(t, s)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := s.Push(context.Background(), "", from, tt.to, tt.auth, nil)
			if tt.text == "" {
				must(t, err)
				return
			}
			if err == nil || !tt.kind(err) || !strings.Contains(err.Error(), tt.text) {
				t.Fatalf("error: %v", err)
			}
			if strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), `"wrong"`) {
				t.Errorf("the error tells a password: %v", err)
			}
		})
	}
	if n := count(t, s); n != before {
		t.Errorf("left over: %+v, want %+v", n, before)
	}
	if _, err := s.Push(context.Background(), "", "none", "", nil, nil); !errdefs.IsNotFound(err) {
		t.Errorf("push of a missing image: %v", err)
	}
}

// TestPushFaults: uploads that break are repeated, a registry that hangs is given up.
func TestPushFaults(t *testing.T) {
	reg := traced(t)
	isUpload := func(r *http.Request) bool {
		return r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/blobs/")
	}
	var broken atomic.Int32
	hang := make(chan struct{})
	defer close(hang)
	tests := []struct {
		name  string
		fault func(w http.ResponseWriter, r *http.Request) bool
		text  string
	}{
		{"drops twice in the middle", func(_ http.ResponseWriter, r *http.Request) bool {
			if !isUpload(r) || r.ContentLength < 1<<19 || broken.Add(1) > 2 {
				return false
			}
			_, _ = io.CopyN(io.Discard, r.Body, 100_000)
			panic(http.ErrAbortHandler)
		}, ""},
		{"busy twice", func(w http.ResponseWriter, r *http.Request) bool {
			if !isUpload(r) || broken.Add(1) > 2 {
				return false
			}
			w.WriteHeader(http.StatusServiceUnavailable)
			return true
		}, ""},
		{"reads nothing", func(_ http.ResponseWriter, r *http.Request) bool {
			if !isUpload(r) {
				return false
			}
			<-hang
			return true
		}, "does not answer"},
		{"is given up by its client", func(_ http.ResponseWriter, r *http.Request) bool {
			if !isUpload(r) {
				return false
			}
			<-hang
			return true
		}, "context canceled"},
		{"never answers", func(_ http.ResponseWriter, r *http.Request) bool {
			if r.Method == http.MethodPost {
				<-hang
			}
			return r.Method == http.MethodPost
		}, "does not answer"},
		{"says that the digest is wrong", func(w http.ResponseWriter, r *http.Request) bool {
			if !isUpload(r) {
				return false
			}
			w.WriteHeader(http.StatusBadRequest)
			_, _ = io.WriteString(w, `{"errors":[{"code":"DIGEST_INVALID","message":"provided digest did not match"}]}`)
			return true
		}, "did not match"},
	}
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := open(t, func(c *Config) { c.stall = 300 * time.Millisecond })
			// Of its own, lest the registry has it already.
			from := stock(t, s, newFixture(t, map[string]string{"a": random(1<<20 + i)}))
			before := count(t, s)
			broken.Store(0)
			reg.reset(tt.fault)
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			if tt.text == "context canceled" {
				time.AfterFunc(100*time.Millisecond, cancel)
			}
			start := time.Now()
			_, err := s.Push(ctx, "", from, fmt.Sprintf("%s/fault/%d:v1", reg.host, i), nil, nil)
			if (err == nil) != (tt.text == "") || err != nil && !strings.Contains(err.Error(), tt.text) {
				t.Errorf("after %s: %v", time.Since(start), err)
			}
			if n := count(t, s); n != before {
				t.Errorf("left over: %+v, want %+v", n, before)
			}
		})
	}
}

// TestPullResumes: a pull whose registry drops the connection goes on where it was.
func TestPullResumes(t *testing.T) {
	fx := newFixture(t, map[string]string{"a": random(1 << 20)})
	layer := fx.layers[0]
	var mu sync.Mutex
	var ranges []string
	reg := &fakeRegistry{image: fx, fault: func(w http.ResponseWriter, r *http.Request, body []byte) bool {
		if r.Method != http.MethodGet || !strings.HasSuffix(r.URL.Path, layer.Digest.String()) {
			return false
		}
		mu.Lock()
		defer mu.Unlock()
		if ranges = append(ranges, r.Header.Get("Range")); len(ranges) > 1 {
			return false
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		_, _ = w.Write(body[:len(body)/2])
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}}
	srv := httptest.NewServer(reg)
	defer srv.Close()
	s := open(t, nil)
	_, err := s.Pull(context.Background(), "", srv.Listener.Addr().String()+"/x:v1", nil, nil)
	must(t, err)
	mu.Lock()
	defer mu.Unlock()
	if len(ranges) != 2 || ranges[0] != "" || ranges[1] == "" || strings.HasPrefix(ranges[1], "bytes=0-") {
		t.Errorf("the layer was asked for with the ranges %q", ranges)
	}
}

// TestPullHangs: a registry that accepts and then says nothing is given up.
func TestPullHangs(t *testing.T) {
	hang := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-hang }))
	defer srv.Close()
	defer close(hang)
	s := open(t, func(c *Config) { c.stall = 200 * time.Millisecond })
	_, err := s.Pull(context.Background(), "", srv.Listener.Addr().String()+"/x:v1", nil, nil)
	if !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("error: %v", err)
	}
}

// TestDiskFull: a pull that fills the disk says so and leaves nothing; with less to
// pull the store works on.
func TestDiskFull(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "size=6m"))
	t.Cleanup(func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	s := open(t, func(c *Config) { c.Root = dir })
	stock(t, s, newFixture(t, map[string]string{"a": "first"}))
	before := count(t, s)
	for range 2 {
		srv := httptest.NewServer(&fakeRegistry{image: newFixture(t, map[string]string{"a": random(4 << 20)}, map[string]string{"b": random(4<<20 + 1)})})
		_, err := s.Pull(context.Background(), "", srv.Listener.Addr().String()+"/x:v1", nil, nil)
		srv.Close()
		if err == nil || !strings.Contains(err.Error(), "no space left") {
			t.Fatalf("error: %v", err)
		}
		if n := count(t, s); n != before {
			t.Fatalf("left over: %+v, want %+v", n, before)
		}
	}
	img, err := s.Ensure(context.Background(), Request{Ref: stock(t, s, newFixture(t, map[string]string{"a": "small"}))})
	if err != nil || img.ChainID == "" {
		t.Errorf("a small image afterwards: %v", err)
	}
}

// TestDamagedBlobs: what the disk changed is found when it is used, dropped, and
// fetched again.
func TestDamagedBlobs(t *testing.T) {
	ctx := context.Background()
	fx := newFixture(t, map[string]string{"a": random(100_000)})
	var config ocispec.Manifest
	must(t, json.Unmarshal(fx.blobs[fx.manifest.Digest], &config))
	srv := httptest.NewServer(&fakeRegistry{image: fx})
	defer srv.Close()
	ref := srv.Listener.Addr().String() + "/x:v1"
	for _, what := range []struct {
		name string
		dgst digest.Digest
	}{{"manifest", fx.manifest.Digest}, {"configuration", config.Config.Digest}, {"layer", fx.layers[0].Digest}} {
		t.Run(what.name, func(t *testing.T) {
			s := open(t, nil)
			_, err := s.Ensure(ctx, Request{Ref: ref})
			must(t, err)
			whole := count(t, s)
			damage(t, s, what.dgst)
			if what.name == "layer" {
				// It was unpacked before; a push is what reads it again.
				_, err := s.Push(ctx, "", ref, traced(t).host+"/x:v1", nil, nil)
				if err == nil || !strings.Contains(err.Error(), "damaged on this host's disk") {
					t.Fatalf("push: %v", err)
				}
			}
			if _, err := s.Ensure(ctx, Request{Ref: ref, Policy: corev1.PullIfNotPresent}); err != nil {
				t.Fatal(err)
			}
			must(t, s.checkBlob(s.in(ctx), what.dgst))
			if n := count(t, s); n != whole {
				t.Errorf("afterwards %+v, before %+v", n, whole)
			}
		})
	}
	t.Run("save", func(t *testing.T) {
		s := open(t, nil)
		_, err := s.Ensure(ctx, Request{Ref: ref})
		must(t, err)
		damage(t, s, fx.layers[0].Digest)
		if err := s.Save(ctx, io.Discard, "", ref); err == nil || !strings.Contains(err.Error(), "damaged on this host's disk") {
			t.Errorf("save: %v", err)
		}
	})
}
