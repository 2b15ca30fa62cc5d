package image

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/pkg/archive/compression"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

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

func traced(t testing.TB) *tracedRegistry { return tracedBy(t, "") }

// tracedBy has more in the real registry's configuration.
func tracedBy(t testing.TB, extra string) *tracedRegistry {
	t.Helper()
	behind, _ := realRegistry(t, extra)
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
	return indexOf(t, newFixture(t, map[string]string{"a": "index"}), ocispec.MediaTypeImageIndex, whole)
}

// indexOf puts a fixture into an index, or a manifest list as Docker calls it.
func indexOf(t testing.TB, fx *fixture, mediaType string, whole bool) (_ *fixture, own digest.Digest) {
	t.Helper()
	mine := fx.manifest
	mine.Platform = &ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH}
	other := newFixture(t, map[string]string{"a": "other"})
	theirs := other.manifest
	theirs.Platform = &ocispec.Platform{OS: "linux", Architecture: "s390x"}
	idx := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: mediaType, Manifests: []ocispec.Descriptor{mine}}
	if !whole {
		idx.Manifests = append(idx.Manifests, theirs)
	}
	own = fx.manifest.Digest
	fx.manifest = fx.addJSON(t, mediaType, idx)
	return fx, own
}

// TestPushRoundTrip: what is pushed, removed and pulled again has the same digest
// and the same files, in every format.
func TestPushRoundTrip(t *testing.T) {
	reg := traced(t)
	partial, own := indexFixture(t, false)
	full, _ := indexFixture(t, true)
	list, _ := indexOf(t, dockerFixture(t, map[string]string{"a": "list"}), images.MediaTypeDockerSchema2ManifestList, true)
	listOfOthers, ownOfList := indexOf(t, dockerFixture(t, map[string]string{"a": "more"}), images.MediaTypeDockerSchema2ManifestList, false)
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
		{"docker-list", list, "", ""},
		{"docker-list-of-others", listOfOthers, ownOfList, "was pushed instead of the index"},
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
