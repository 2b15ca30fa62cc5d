package image

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	corev1 "k8s.io/api/core/v1"
)

// authority signs certificates for one test.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	must(t, err)
	cert, err := x509.ParseCertificate(der)
	must(t, err)
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &authority{cert, key, pool}
}

// issue makes a certificate for both ends of mutual TLS.
func (a *authority) issue(t testing.TB, name string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, &key.PublicKey, a.key)
	must(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func (a *authority) client(t testing.TB, name string) *tls.Config {
	return &tls.Config{RootCAs: a.pool, Certificates: []tls.Certificate{a.issue(t, name)}}
}

// serve serves a store to peers with client certificates.
func (a *authority) serve(t testing.TB, h http.Handler) Peer {
	t.Helper()
	srv := httptest.NewUnstartedServer(h)
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{a.issue(t, "peer")}, ClientCAs: a.pool, ClientAuth: tls.RequireAndVerifyClientCert}
	srv.Config.ErrorLog = nil
	srv.StartTLS()
	t.Cleanup(srv.Close)
	return Peer{Name: srv.Listener.Addr().String(), URL: srv.URL}
}

// fixedPeers answers every question with the same peers.
type fixedPeers struct{ holders, named []Peer }

func (f fixedPeers) Holders(context.Context, digest.Digest) []Peer { return f.holders }
func (f fixedPeers) Named(context.Context, string) []Peer          { return f.named }

// fixedBuilds are the cluster's Image objects, all in the namespace default.
type fixedBuilds map[string]digest.Digest

func (f fixedBuilds) Lookup(_ context.Context, namespace, ref string) (digest.Digest, bool) {
	d, ok := f[ref]
	return d, ok && namespace == "default"
}

// target is the descriptor of an image that no build made.
func target(t testing.TB, s *Store, img Image) ocispec.Descriptor {
	t.Helper()
	rec, err := s.find(s.in(context.Background()), "default", img.Target)
	must(t, err)
	return rec.Target
}

// built puts an image into a store as a build in the namespace default would.
func built(t testing.TB, s *Store, name string, files map[string]string) Image {
	t.Helper()
	ctx := context.Background()
	img := importRootFS(t, s, "tmp/"+name, files)
	img, err := s.Promote(ctx, "default", []string{"docker.io/library/" + name + ":latest"}, target(t, s, img))
	must(t, err)
	must(t, s.Untag(ctx, "tmp/"+name))
	return img
}

// TestPullFromPeer: an image that the cluster built reaches another host by
// digest over mutual TLS, whatever the pull policy says.
func TestPullFromPeer(t *testing.T) {
	ca := newAuthority(t)
	a := open(t, nil)
	img := built(t, a, "shop", map[string]string{"etc/": "", "etc/a": "built"})
	peer := ca.serve(t, a.Handler())
	b := open(t, func(c *Config) {
		c.TLS = ca.client(t, "b")
		c.Peers = fixedPeers{holders: []Peer{peer}}
		c.Builds = fixedBuilds{"docker.io/library/shop:latest": img.Target}
	})
	ctx := context.Background()
	var last Progress
	got, err := b.Ensure(ctx, Request{Namespace: "default", Ref: "shop", Policy: corev1.PullNever, Progress: func(p Progress) { last = p }})
	must(t, err)
	if got.Target != img.Target || got.ChainID != img.ChainID {
		t.Errorf("got %+v, want %+v", got, img)
	}
	if last.Total == 0 || last.Done != last.Total {
		t.Errorf("progress ended at %+v", last)
	}
	mounts, err := b.Prepare(ctx, "c", got, false)
	must(t, err)
	withRoot(t, mounts, func(root string) {
		if body, err := os.ReadFile(filepath.Join(root, "etc/a")); string(body) != "built" {
			t.Errorf("file %q, %v", body, err)
		}
	})
	must(t, b.Remove(ctx, "c"))
	if all, err := b.List(ctx); err != nil || len(all) != 1 || all[0].Origin != OriginBuild || all[0].Names[0] != "docker.io/library/shop:latest" {
		t.Errorf("list: %+v, %v", all, err)
	}
}

// TestPinnedVersion: a pod that is pinned to an older build gets it, and the
// tag stays where it is.
func TestPinnedVersion(t *testing.T) {
	ca := newAuthority(t)
	a := open(t, nil)
	old := built(t, a, "shop", map[string]string{"v": "1"})
	cur := built(t, a, "shop", map[string]string{"v": "2"})
	b := open(t, func(c *Config) {
		c.TLS = ca.client(t, "b")
		c.Peers = fixedPeers{holders: []Peer{ca.serve(t, a.Handler())}}
		c.Builds = fixedBuilds{"docker.io/library/shop:latest": cur.Target}
	})
	ctx := context.Background()
	for _, want := range []Image{cur, old, cur} {
		got, err := b.Ensure(ctx, Request{Namespace: "default", Ref: "shop", Pin: want.Target})
		must(t, err)
		if got.Target != want.Target {
			t.Errorf("pinned to %s, got %s", want.Target, got.Target)
		}
		if tag, err := b.Get(ctx, "default", "shop"); err != nil || tag.Target != cur.Target {
			t.Errorf("the tag means %s, %v; want %s", tag.Target, err, cur.Target)
		}
	}
}

// TestCorruptPeer: what a broken disk sends is noticed, dropped and fetched
// from the next holder; the broken one drops its blob.
func TestCorruptPeer(t *testing.T) {
	ca := newAuthority(t)
	bad, good := open(t, nil), open(t, nil)
	files := map[string]string{"data": random(300_000)}
	img := built(t, good, "shop", files)
	peerGood := ca.serve(t, good.Handler())
	bad.cfg.TLS, bad.peers = nil, newPeerClient(ca.client(t, "bad"), stallTimeout)
	bad.cfg.Peers = fixedPeers{holders: []Peer{peerGood}}
	_, err := bad.Ensure(context.Background(), Request{Namespace: "default", Ref: "shop", Pin: img.Target})
	must(t, err)
	_, manifest, err := platformManifest(bad.in(context.Background()), bad.content, bad.platform, target(t, bad, img))
	must(t, err)
	damage(t, bad, manifest.Layers[0].Digest)
	peerBad := ca.serve(t, bad.Handler())
	c := open(t, func(c *Config) {
		c.TLS = ca.client(t, "c")
		c.Builds = fixedBuilds{"docker.io/library/shop:latest": img.Target}
	})
	empty := count(t, c)
	// Alone, the broken host cannot serve: a clear error and nothing left over.
	c.cfg.Peers = fixedPeers{holders: []Peer{peerBad}}
	_, err = c.Ensure(context.Background(), Request{Namespace: "default", Ref: "shop"})
	if !errors.Is(err, ErrPull) || !strings.Contains(err.Error(), "does not match the digest") {
		t.Errorf("error: %v", err)
	}
	if n := count(t, c); n != empty {
		t.Errorf("left over: %+v", n)
	}
	c.cfg.Peers = fixedPeers{holders: []Peer{peerBad, peerGood}}
	for range 3 { // each time another peer is asked first
		got, err := c.Ensure(context.Background(), Request{Namespace: "default", Ref: "shop"})
		must(t, err)
		if got.Target != img.Target {
			t.Errorf("got %s", got.Target)
		}
		_, err = c.Prune(context.Background(), PruneOptions{})
		must(t, err)
	}
	if _, err := bad.content.Info(bad.in(context.Background()), manifest.Layers[0].Digest); err == nil {
		t.Error("the broken host kept its damaged blob")
	}
}

// damage flips a byte of a blob on disk.
func damage(t testing.TB, s *Store, d digest.Digest) {
	t.Helper()
	path := filepath.Join(s.cfg.Root, "content", "blobs", "sha256", d.Encoded())
	must(t, os.Chmod(path, 0o600))
	raw, err := os.ReadFile(path)
	must(t, err)
	raw[len(raw)/2] ^= 0xff
	must(t, os.WriteFile(path, raw, 0o600))
}

// TestBrokenConnection: a transfer that breaks off goes on where it stopped.
func TestBrokenConnection(t *testing.T) {
	ca := newAuthority(t)
	a := open(t, nil)
	img := built(t, a, "shop", map[string]string{"data": random(2 << 20)})
	var breaks, sent atomic.Int64
	inner := a.Handler()
	flaky := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		cw := &cuttingWriter{ResponseWriter: w, sent: &sent, left: 600_000}
		inner.ServeHTTP(cw, r)
		if cw.left < 0 {
			breaks.Add(1)
			panic(http.ErrAbortHandler)
		}
	})
	b := open(t, func(c *Config) {
		c.TLS = ca.client(t, "b")
		c.Peers = fixedPeers{holders: []Peer{ca.serve(t, flaky)}}
		c.Builds = fixedBuilds{"docker.io/library/shop:latest": img.Target}
	})
	_, err := b.Ensure(context.Background(), Request{Namespace: "default", Ref: "shop"})
	must(t, err)
	if breaks.Load() < 2 || sent.Load() > img.Size*3/2 {
		t.Errorf("%d breaks, %d bytes sent for an image of %d", breaks.Load(), sent.Load(), img.Size)
	}
}

// cuttingWriter stops after some bytes.
type cuttingWriter struct {
	http.ResponseWriter
	sent *atomic.Int64
	left int
}

func (c *cuttingWriter) Write(p []byte) (int, error) {
	if c.left -= len(p); c.left < 0 {
		return 0, errors.New("cut")
	}
	c.sent.Add(int64(len(p)))
	return c.ResponseWriter.Write(p)
}

// TestPeersOnly: errors when no peer can help, and peers that refuse.
func TestPeersOnly(t *testing.T) {
	ca, stranger := newAuthority(t), newAuthority(t)
	a := open(t, nil)
	img := built(t, a, "shop", map[string]string{"a": "x"})
	peer := ca.serve(t, a.Handler())
	tests := []struct {
		name   string
		change func(*Config)
		want   error
		text   string
	}{
		{"not built yet", func(c *Config) { c.Builds = fixedBuilds{"docker.io/library/shop:latest": ""} }, ErrNotBuilt, "no build of it has succeeded yet"},
		{"no holder is up", func(c *Config) { c.Builds = fixedBuilds{"docker.io/library/shop:latest": img.Target} }, ErrPull, "no host that is up holds"},
		{"certificate of another cluster", func(c *Config) {
			c.Builds = fixedBuilds{"docker.io/library/shop:latest": img.Target}
			c.Peers = fixedPeers{holders: []Peer{peer}}
			c.TLS = stranger.client(t, "x")
		}, ErrPull, "certificate"},
		{"holder is gone", func(c *Config) {
			c.Builds = fixedBuilds{"docker.io/library/shop:latest": img.Target}
			c.Peers = fixedPeers{holders: []Peer{{"gone", "https://127.0.0.1:1"}}}
		}, ErrPull, "host gone"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := open(t, tt.change)
			empty := count(t, s)
			_, err := s.Ensure(context.Background(), Request{Namespace: "default", Ref: "shop"})
			if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("error: %v", err)
			}
			if n := count(t, s); n != empty {
				t.Errorf("left over: %+v", n)
			}
		})
	}
}

// TestImportedElsewhere: a name that only another host knows is found there
// before a registry is asked.
func TestImportedElsewhere(t *testing.T) {
	ca := newAuthority(t)
	a := open(t, nil)
	img := importRootFS(t, a, "base", map[string]string{"a": "x"})
	b := open(t, func(c *Config) {
		c.TLS = ca.client(t, "b")
		c.Peers = fixedPeers{named: []Peer{ca.serve(t, a.Handler())}}
	})
	got, err := b.Ensure(context.Background(), Request{Namespace: "default", Ref: "base", Policy: corev1.PullIfNotPresent})
	must(t, err)
	if got.Target != img.Target {
		t.Errorf("got %s, want %s", got.Target, img.Target)
	}
	for _, ref := range []string{"base", "nobody:v1"} {
		if use, err := b.EnsureNearby(context.Background(), "default", ref); err != nil || use != ref {
			t.Errorf("nearby %s: %q, %v", ref, use, err)
		}
	}
	if rec, err := b.ResolveBase(context.Background(), "docker.io/library/base:latest"); err != nil || rec.Target.Digest != img.Target {
		t.Errorf("base: %v, %v", rec.Target, err)
	}
}
