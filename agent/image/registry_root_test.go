package image

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/crypto/bcrypt"
	corev1 "k8s.io/api/core/v1"
)

// realRegistry starts Debian's docker-registry on a loopback port of its own.
func realRegistry(t testing.TB, extra string) (host, data string) {
	t.Helper()
	program := needProgram(t, "docker-registry", "docker-registry")
	dir := t.TempDir()
	data = filepath.Join(dir, "data")
	config := fmt.Sprintf("version: 0.1\nlog: {level: info}\nstorage: {filesystem: {rootdirectory: %s}, delete: {enabled: true}}\nhttp:\n  addr: 127.0.0.1:0\n%s", data, extra)
	file := filepath.Join(dir, "config.yml")
	must(t, os.WriteFile(file, []byte(config), 0o600))
	cmd := exec.Command(program, "serve", file)
	stderr, err := cmd.StderrPipe()
	must(t, err)
	must(t, cmd.Start())
	listens, ended := make(chan string, 1), make(chan struct{})
	go func() {
		defer close(ended)
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			if at := listening.FindStringSubmatch(lines.Text()); at != nil {
				listens <- at[1]
			} else if !strings.Contains(lines.Text(), "level=info") {
				t.Log(lines.Text())
			}
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
		_ = cmd.Wait()
	})
	select {
	case host = <-listens:
	case <-ended:
		t.Fatal("docker-registry did not start")
	}
	return host, data
}

// listening is what docker-registry says when it has bound its port.
var listening = regexp.MustCompile(`listening on (127\.0\.0\.1:\d+)`)

// push puts a fixture into a registry by the OCI distribution API.
func push(t testing.TB, client *http.Client, base, user, password, repo, tag string, f *fixture) {
	t.Helper()
	send := func(method, url, mediaType string, body []byte) *http.Response {
		req, err := http.NewRequest(method, url, bytes.NewReader(body))
		must(t, err)
		req.Header.Set("Content-Type", mediaType)
		if user != "" {
			req.SetBasicAuth(user, password)
		}
		resp, err := client.Do(req)
		must(t, err)
		defer resp.Body.Close()
		text, _ := io.ReadAll(resp.Body)
		if resp.StatusCode/100 != 2 {
			t.Fatalf("%s %s: %s %s", method, url, resp.Status, text)
		}
		return resp
	}
	for d, raw := range f.blobs {
		if d == f.manifest.Digest {
			continue
		}
		resp := send("POST", base+"/v2/"+repo+"/blobs/uploads/", "", nil)
		loc, err := resp.Location()
		must(t, err)
		q := loc.Query()
		q.Set("digest", d.String())
		loc.RawQuery = q.Encode()
		send("PUT", loc.String(), "application/octet-stream", raw)
	}
	send("PUT", base+"/v2/"+repo+"/manifests/"+tag, f.manifest.MediaType, f.blobs[f.manifest.Digest])
}

func TestPullFromRegistry(t *testing.T) {
	host, data := realRegistry(t, "")
	fx := newFixture(t, map[string]string{"a": "1"}, map[string]string{"a": "2", "b": random(100_000)})
	push(t, http.DefaultClient, "http://"+host, "", "", "team/shop", "v1", fx)
	s := open(t, nil)
	empty := count(t, s)
	ctx := context.Background()
	img, err := s.Ensure(ctx, Request{Namespace: "default", Ref: host + "/team/shop:v1"})
	must(t, err)
	if img.Target != fx.manifest.Digest || len(img.Config.Config.Cmd) != 1 {
		t.Errorf("got %+v", img)
	}
	mounts, err := s.Prepare(ctx, "c", img, false)
	must(t, err)
	withRoot(t, mounts, func(root string) {
		if body, err := os.ReadFile(filepath.Join(root, "a")); string(body) != "2" {
			t.Errorf("file %q, %v", body, err)
		}
	})
	// A tag that moved: IfNotPresent keeps what is here, Always follows.
	next := newFixture(t, map[string]string{"a": "3"})
	push(t, http.DefaultClient, "http://"+host, "", "", "team/shop", "v1", next)
	if got, err := s.Ensure(ctx, Request{Namespace: "default", Ref: host + "/team/shop:v1", Policy: corev1.PullIfNotPresent}); err != nil || got.Target != fx.manifest.Digest {
		t.Errorf("IfNotPresent: %v, %v", got.Target, err)
	}
	if got, err := s.Ensure(ctx, Request{Namespace: "default", Ref: host + "/team/shop:v1", Policy: corev1.PullAlways}); err != nil || got.Target != next.manifest.Digest {
		t.Errorf("Always: %v, %v", got.Target, err)
	}
	if got, err := s.Ensure(ctx, Request{Namespace: "default", Ref: host + "/team/shop@" + fx.manifest.Digest.String()}); err != nil || got.Target != fx.manifest.Digest {
		t.Errorf("by digest: %v, %v", got.Target, err)
	}
	for _, ref := range []string{"/team/shop:none", "/team/none:v1"} {
		_, err := s.Ensure(ctx, Request{Namespace: "default", Ref: host + ref})
		if !errors.Is(err, ErrPull) || !strings.Contains(err.Error(), "has no such image or tag") {
			t.Errorf("%s: %v", ref, err)
		}
	}
	must(t, s.Remove(ctx, "c"))
	_, err = s.Prune(ctx, PruneOptions{})
	must(t, err)
	if n := count(t, s); n != empty {
		t.Errorf("left over: %+v", n)
	}
	registryLost(t, s, host, data)
}

// registryLost: a host whose registry is gone says so, and another host still
// gets the image from the first.
func registryLost(t *testing.T, _ *Store, host, _ string) {
	a := open(t, nil)
	img, err := a.Ensure(context.Background(), Request{Namespace: "default", Ref: host + "/team/shop:v1"})
	must(t, err)
	ca := newAuthority(t)
	peers := fixedPeers{}
	peer := ca.serve(t, a.Handler())
	peers.holders, peers.named = []Peer{peer}, []Peer{peer}
	b := open(t, func(c *Config) {
		c.TLS, c.Peers = ca.client(t, "b"), peers
		// Where the registry was, nobody answers.
		c.Registries = map[string]Registry{}
	})
	_, err = a.Ensure(context.Background(), Request{Namespace: "default", Ref: "127.0.0.1:1/team/shop:v1"})
	if !errors.Is(err, ErrPull) || !strings.Contains(err.Error(), "cannot be reached") {
		t.Errorf("unreachable registry: %v", err)
	}
	got, err := b.Ensure(context.Background(), Request{Namespace: "default", Ref: host + "/team/shop:v1", Policy: corev1.PullIfNotPresent})
	if err != nil || got.Target != img.Target {
		t.Errorf("from a peer by name: %v, %v", got.Target, err)
	}
}

// guardedRegistry is a real registry with TLS of an authority of its own, and one
// user: ann, whose password is "secret".
type guardedRegistry struct {
	host, caFile string
	authority    *authority
}

func passwordRegistry(t testing.TB) guardedRegistry {
	t.Helper()
	dir := t.TempDir()
	ca := newAuthority(t)
	cert := ca.issue(t, "registry")
	caFile := filepath.Join(dir, "ca.pem")
	writePEM(t, caFile, "CERTIFICATE", ca.cert.Raw)
	writePEM(t, filepath.Join(dir, "cert.pem"), "CERTIFICATE", cert.Certificate[0])
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	must(t, err)
	writePEM(t, filepath.Join(dir, "key.pem"), "PRIVATE KEY", key)
	hash, err := bcrypt.GenerateFromPassword([]byte("secret"), bcrypt.MinCost)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "htpasswd"), []byte("ann:"+string(hash)+"\n"), 0o600))
	host, _ := realRegistry(t, fmt.Sprintf("  tls: {certificate: %s, key: %s}\nauth: {htpasswd: {realm: test, path: %s}}\n",
		filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"), filepath.Join(dir, "htpasswd")))
	return guardedRegistry{host, caFile, ca}
}

// TestRegistryAuth: htpasswd over TLS with a certificate authority of its own.
func TestRegistryAuth(t *testing.T) {
	needRoot(t)
	reg := passwordRegistry(t)
	host, caFile := reg.host, reg.caFile
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: reg.authority.pool}}}
	fx := newFixture(t, map[string]string{"a": "1"})
	push(t, client, "https://"+host, "ann", "secret", "team/shop", "v1", fx)
	cred := func(where, password string) Credential {
		return Credential{Host: where, Username: "ann", Password: password}
	}
	tests := []struct {
		name string
		auth []Credential
		text string // of the error; "" is success
	}{
		{"none", nil, "wants credentials"},
		{"wrong password", []Credential{cred(host, "wrong")}, `refused user "ann"`},
		{"for another registry", []Credential{cred("other.example", "secret")}, "wants credentials"},
		{"for another repository", []Credential{cred(host+"/other", "secret")}, "wants credentials"},
		{"right", []Credential{cred(host, "secret")}, ""},
		{"second of two", []Credential{cred(host, "wrong"), cred("https://"+host+"/v1/", "secret")}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := open(t, func(c *Config) { c.Registries = map[string]Registry{host: {CAFile: caFile}} })
			empty := count(t, s)
			_, err := s.Ensure(context.Background(), Request{Namespace: "default", Ref: host + "/team/shop:v1", Auth: tt.auth})
			if tt.text == "" {
				must(t, err)
				return
			}
			if !errors.Is(err, ErrPull) || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("error: %v", err)
			}
			if strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "wrong\"") {
				t.Errorf("the error tells a password: %v", err)
			}
			if n := count(t, s); n != empty {
				t.Errorf("left over: %+v", n)
			}
		})
	}
	t.Run("unknown authority", func(t *testing.T) {
		s := open(t, nil)
		_, err := s.Ensure(context.Background(), Request{Namespace: "default", Ref: host + "/team/shop:v1", Auth: []Credential{cred(host, "secret")}})
		if !errors.Is(err, ErrPull) {
			t.Errorf("error: %v", err)
		}
	})
}

// TestMirrorSettings: a mirror is asked with its own settings, if it has some,
// and the registry behind it when the mirror does not answer.
func TestMirrorSettings(t *testing.T) {
	ca := newAuthority(t)
	caFile := filepath.Join(t.TempDir(), "ca.pem")
	writePEM(t, caFile, "CERTIFICATE", ca.cert.Raw)
	fx := newFixture(t, map[string]string{"a": "1"})
	origin, behind := &fakeRegistry{image: fx}, &fakeRegistry{image: fx}
	so := httptest.NewServer(origin)
	defer so.Close()
	sm := httptest.NewUnstartedServer(behind)
	sm.TLS = &tls.Config{Certificates: []tls.Certificate{ca.issue(t, "mirror")}}
	sm.StartTLS()
	defer sm.Close()
	host, mirror := so.Listener.Addr().String(), sm.Listener.Addr().String()
	for _, tt := range []struct {
		name       string
		settings   Registry // of the mirror
		fromMirror bool
	}{
		{"trusted by its own authority", Registry{CAFile: caFile}, true},
		{"insecure", Registry{Insecure: true}, true},
		{"not trusted", Registry{}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := behind.requests(fx.layers[0].Digest)
			s := open(t, func(c *Config) {
				c.Registries = map[string]Registry{host: {Mirrors: []string{"https://" + mirror}}, mirror: tt.settings}
			})
			_, err := s.Ensure(context.Background(), Request{Namespace: "default", Ref: host + "/x:v1"})
			must(t, err)
			if got := behind.requests(fx.layers[0].Digest) > before; got != tt.fromMirror {
				t.Errorf("from the mirror: %t, want %t", got, tt.fromMirror)
			}
		})
	}
}

// TestPullThrough: hosts pull through a real registry that is a mirror of another, which
// is not asked for the layer again.
func TestPullThrough(t *testing.T) {
	origin := traced(t)
	fx := newFixture(t, map[string]string{"a": random(300_000)})
	push(t, http.DefaultClient, "http://"+origin.host, "", "", "team/shop", "v1", fx)
	cache, data := realRegistry(t, fmt.Sprintf("proxy: {remoteurl: 'http://%s'}\n", origin.host))
	origin.reset(nil)
	pull := func() {
		t.Helper()
		s := open(t, func(c *Config) {
			c.Registries = map[string]Registry{origin.host: {Mirrors: []string{"http://" + cache}}}
		})
		img, err := s.Ensure(context.Background(), Request{Namespace: "default", Ref: origin.host + "/team/shop:v1"})
		if err != nil || img.Target != fx.manifest.Digest {
			t.Fatalf("%v, %v", img.Target, err)
		}
	}
	pull()
	layer := fx.layers[0].Digest
	// It has it when its repository links to the blob, which is written before.
	eventually(t, "the mirror has kept the layer", func() bool {
		_, err := os.Stat(filepath.Join(data, "docker/registry/v2/repositories/team/shop/_layers/sha256", layer.Encoded(), "link"))
		return err == nil
	})
	if origin.count("GET /v2/team/shop/blobs/"+layer.String()) == 0 {
		t.Error("the layer did not come through the mirror")
	}
	origin.reset(nil)
	for range 2 {
		pull()
	}
	if n := origin.count("GET /v2/team/shop/blobs/" + layer.String()); n != 0 {
		t.Errorf("the registry was asked for the layer %d times more", n)
	}
}

// TestParallelPull: layers are fetched side by side: the registry sends none before it
// has been asked for several.
func TestParallelPull(t *testing.T) {
	var files []map[string]string
	for i := range 2 * parallelBlobs {
		files = append(files, map[string]string{fmt.Sprint("f", i): random(1000 + i)})
	}
	fx := newFixture(t, files...)
	var mu sync.Mutex
	now, most := 0, 0
	enough := make(chan struct{})
	srv := httptest.NewServer(&fakeRegistry{image: fx, fault: func(_ http.ResponseWriter, r *http.Request, _ []byte) bool {
		if r.Method != http.MethodGet || !slices.ContainsFunc(fx.layers, func(l ocispec.Descriptor) bool { return strings.HasSuffix(r.URL.Path, l.Digest.String()) }) {
			return false
		}
		mu.Lock()
		now++
		if most = max(most, now); now == parallelBlobs {
			close(enough)
			enough = make(chan struct{}) // for the next ones
			now = 0
			mu.Unlock()
			return false
		}
		wait := enough
		mu.Unlock()
		select {
		case <-wait:
		case <-r.Context().Done(): // it waited in vain
			mu.Lock()
			now--
			mu.Unlock()
		}
		return false
	}})
	defer srv.Close()
	_, err := open(t, nil).Ensure(context.Background(), Request{Ref: srv.Listener.Addr().String() + "/x:v1"})
	must(t, err)
	if most != parallelBlobs {
		t.Errorf("%d layers were asked for at a time, want %d", most, parallelBlobs)
	}
}

// TestMirrorFallback: what a mirror does not have, or fails to send, comes from the
// registry behind it, though the mirror was asked first.
func TestMirrorFallback(t *testing.T) {
	fx := newFixture(t, map[string]string{"a": random(100_000)})
	layer := fx.layers[0].Digest
	hang := make(chan struct{})
	defer close(hang)
	isLayer := func(r *http.Request) bool {
		return r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, layer.String())
	}
	refuse := func(code int, concerns func(*http.Request) bool) func(http.ResponseWriter, *http.Request, []byte) bool {
		return func(w http.ResponseWriter, r *http.Request, _ []byte) bool {
			if concerns(r) {
				w.WriteHeader(code)
			}
			return concerns(r)
		}
	}
	all := func(*http.Request) bool { return true }
	for name, fault := range map[string]func(http.ResponseWriter, *http.Request, []byte) bool{
		"does not have the image": refuse(http.StatusNotFound, all),
		"does not have the layer": refuse(http.StatusNotFound, isLayer),
		"is out of order":         refuse(http.StatusServiceUnavailable, all),
		"cannot read the layer":   refuse(http.StatusInternalServerError, isLayer),
		"refuses":                 refuse(http.StatusForbidden, all),
		"hangs": func(_ http.ResponseWriter, r *http.Request, _ []byte) bool {
			if r.Method == http.MethodHead || isLayer(r) {
				<-hang
			}
			return false
		},
	} {
		t.Run(name, func(t *testing.T) {
			origin, mirror := &fakeRegistry{image: fx}, &fakeRegistry{image: fx, fault: fault}
			so, sm := httptest.NewServer(origin), httptest.NewServer(mirror)
			defer so.Close()
			defer func() { sm.CloseClientConnections(); go sm.Close() }() // one hangs until the test ends
			host := so.Listener.Addr().String()
			s := open(t, func(c *Config) {
				c.Registries = map[string]Registry{host: {Mirrors: []string{sm.URL}}}
				if name == "hangs" {
					c.stall = 2 * time.Second
				}
			})
			img, err := s.Ensure(context.Background(), Request{Namespace: "default", Ref: host + "/x:v1"})
			if err != nil || img.Target != fx.manifest.Digest {
				t.Fatalf("%v, %v", img.Target, err)
			}
			if n := origin.requests(layer); n != 1 {
				t.Errorf("the registry was asked for the layer %d times", n)
			}
			mirror.mu.Lock()
			defer mirror.mu.Unlock()
			if len(mirror.gets) == 0 {
				t.Error("the mirror was not asked")
			}
		})
	}
}

func writePEM(t testing.TB, path, kind string, der []byte) {
	t.Helper()
	must(t, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
}

// TestRegistryFaults: registries that drop, fail, lie or hang, and pulls that
// are cancelled, leave nothing behind.
func TestRegistryFaults(t *testing.T) {
	big := newFixture(t, map[string]string{"a": random(1 << 20)}, map[string]string{"b": "small"})
	layer := big.layers[0].Digest
	isLayer := func(r *http.Request) bool {
		return r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, layer.String())
	}
	var failures atomic.Int32
	tests := []struct {
		name  string
		fault func(w http.ResponseWriter, r *http.Request, body []byte) bool
		text  string // of the error; "" is success
	}{
		{"two failures, then well", func(w http.ResponseWriter, r *http.Request, _ []byte) bool {
			if isLayer(r) && failures.Add(1) <= 2 {
				http.Error(w, "busy", http.StatusServiceUnavailable)
				return true
			}
			return false
		}, ""},
		{"wrong bytes", func(w http.ResponseWriter, r *http.Request, body []byte) bool {
			if !isLayer(r) {
				return false
			}
			wrong := bytes.Clone(body)
			wrong[100] ^= 1
			w.Header().Set("Content-Length", fmt.Sprint(len(wrong)))
			_, _ = w.Write(wrong)
			return true
		}, "does not match the digest"},
		{"a missing layer", func(w http.ResponseWriter, r *http.Request, _ []byte) bool {
			if isLayer(r) {
				http.Error(w, "", http.StatusNotFound)
			}
			return isLayer(r)
		}, "not found"},
		{"drops the connection each time", func(w http.ResponseWriter, r *http.Request, body []byte) bool {
			if !isLayer(r) {
				return false
			}
			w.Header().Set("Content-Length", fmt.Sprint(len(body)))
			_, _ = w.Write(body[:1000])
			panic(http.ErrAbortHandler)
		}, "fetch blob"},
		{"hangs in mid-layer each time", func(w http.ResponseWriter, r *http.Request, body []byte) bool {
			if !isLayer(r) {
				return false
			}
			w.Header().Set("Content-Length", fmt.Sprint(len(body)))
			_, _ = w.Write(body[:1000])
			w.(http.Flusher).Flush()
			<-r.Context().Done() // the client has given up
			return true
		}, "stood still"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			reg := &fakeRegistry{image: big, fault: tt.fault}
			srv := httptest.NewServer(reg)
			defer srv.Close()
			s := open(t, func(c *Config) {
				if tt.text == "stood still" {
					c.stall = 2 * time.Second
				}
			})
			empty := count(t, s)
			_, err := s.Ensure(context.Background(), Request{Namespace: "default", Ref: srv.Listener.Addr().String() + "/x:v1"})
			if tt.text == "" {
				must(t, err)
				return
			}
			if !errors.Is(err, ErrPull) || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("error: %v", err)
			}
			if n := count(t, s); n != empty {
				t.Errorf("left over: %+v, want %+v", n, empty)
			}
		})
	}
	t.Run("cancelled", func(t *testing.T) { cancelledPull(t, big, layer) })
}

func cancelledPull(t *testing.T, img *fixture, layer digest.Digest) {
	reached, hang := make(chan struct{}, 1), make(chan struct{})
	reg := &fakeRegistry{image: img, fault: func(w http.ResponseWriter, r *http.Request, body []byte) bool {
		if r.Method != http.MethodGet || !strings.HasSuffix(r.URL.Path, layer.String()) {
			return false
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		_, _ = w.Write(body[:len(body)/2])
		w.(http.Flusher).Flush()
		reached <- struct{}{}
		<-hang
		return true
	}}
	srv := httptest.NewServer(reg)
	defer srv.Close()
	defer close(hang)
	s := open(t, nil)
	empty := count(t, s)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() { <-reached; cancel() }()
	if _, err := s.Ensure(ctx, Request{Namespace: "default", Ref: srv.Listener.Addr().String() + "/x:v1"}); !errors.Is(err, context.Canceled) {
		t.Errorf("error: %v", err)
	}
	if n := count(t, s); n != empty {
		t.Errorf("left over: %+v, want %+v", n, empty)
	}
}

// TestOnePull: many callers of one image cost one pull; a mirror is asked
// before the registry.
func TestOnePull(t *testing.T) {
	fx := newFixture(t, map[string]string{"a": random(200_000)})
	origin, mirror := &fakeRegistry{image: fx}, &fakeRegistry{image: fx}
	so, sm := httptest.NewServer(origin), httptest.NewServer(mirror)
	defer so.Close()
	defer sm.Close()
	host := so.Listener.Addr().String()
	s := open(t, func(c *Config) { c.Registries = map[string]Registry{host: {Mirrors: []string{sm.URL}}} })
	errs := make(chan error)
	for range 10 {
		go func() {
			_, err := s.Ensure(context.Background(), Request{Namespace: "default", Ref: host + "/x:v1"})
			errs <- err
		}()
	}
	for range 10 {
		must(t, <-errs)
	}
	if m, o := mirror.requests(fx.layers[0].Digest), origin.requests(fx.layers[0].Digest); m != 1 || o != 0 {
		t.Errorf("layer was fetched %d times from the mirror and %d times from the registry, want 1 and 0", m, o)
	}
}

// TestRefusalCounts: a pulled image of a peer does not get round a registry
// that refuses; an image that was imported somewhere in the cluster is found.
func TestRefusalCounts(t *testing.T) {
	ca := newAuthority(t)
	refusing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
		http.Error(w, "", http.StatusUnauthorized)
	}))
	defer refusing.Close()
	ref := refusing.Listener.Addr().String() + "/team/shop:v1"
	for _, origin := range []string{"", OriginImport} {
		a := open(t, nil)
		img := importRootFS(t, a, "tmp", map[string]string{"a": "x"})
		must(t, a.record(a.in(context.Background()), ref, target(t, a, img), false, origin))
		peer := ca.serve(t, a.Handler())
		b := open(t, func(c *Config) {
			c.TLS, c.Peers = ca.client(t, "b"), fixedPeers{named: []Peer{peer}, holders: []Peer{peer}}
		})
		_, err := b.Ensure(context.Background(), Request{Namespace: "default", Ref: ref, Policy: corev1.PullAlways})
		if got := err == nil; got != (origin == OriginImport) {
			t.Errorf("origin %q: %v", origin, err)
		}
	}
}
