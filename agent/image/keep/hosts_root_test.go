package keep

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/http/httptest"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	corev1 "k8s.io/api/core/v1"

	"lighter.dev/lighter/agent/image"
)

// cluster is the truth that hosts see: Image objects, and who is up.
type cluster struct {
	mu     sync.Mutex
	images []Image
	hosts  map[string]*realHost
}

// realHost is a World on a real image store, which its neighbours reach over TLS.
type realHost struct {
	name    string
	cluster *cluster
	store   *image.Store
	server  *httptest.Server
	keeper  *Keeper
	stop    func()
}

func (h *realHost) View(ctx context.Context) (View, error) {
	view := View{Self: h.name, Synced: true, Holders: map[digest.Digest][]string{}, Held: map[digest.Digest]bool{}}
	h.cluster.mu.Lock()
	view.Images = slices.Clone(h.cluster.images)
	for name, host := range h.cluster.hosts {
		view.Nodes = append(view.Nodes, name)
		for dgst := range host.held() {
			if name == h.name {
				view.Held[dgst] = true
			} else {
				view.Holders[dgst] = append(view.Holders[dgst], name)
			}
		}
	}
	h.cluster.mu.Unlock()
	records, err := h.store.Built(ctx)
	for _, b := range records {
		view.Records = append(view.Records, Record{Name{b.Namespace, b.Name, b.Digest}, b.Version})
	}
	return view, err
}

func (h *realHost) held() map[digest.Digest]bool {
	held := map[digest.Digest]bool{}
	list, _ := h.store.List(context.Background()) // a store that is closed holds nothing
	for _, sum := range list {
		held[sum.Digest] = true
	}
	return held
}

func (h *realHost) Ensure(ctx context.Context, name Name) error {
	_, err := h.store.Ensure(ctx, image.Request{Namespace: name.Namespace, Ref: name.Name, Pin: name.Digest, Policy: corev1.PullNever})
	return err
}

func (h *realHost) Drop(ctx context.Context, records []Record) error {
	var gone []image.Built
	for _, r := range records {
		gone = append(gone, image.Built{Namespace: r.Namespace, Name: r.Name.Name, Digest: r.Digest, Version: r.Version})
	}
	return h.store.DropBuilt(ctx, gone)
}

// Lookup implements image.Builds.
func (c *cluster) Lookup(_ context.Context, namespace, ref string) (digest.Digest, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, img := range c.images {
		if img.Namespace == namespace && slices.Contains(img.Names, ref) {
			return img.Digest, true
		}
	}
	return "", false
}

// peers implements image.PeerFinder for one host.
type peers struct {
	cluster *cluster
	self    string
}

func (p peers) Holders(_ context.Context, dgst digest.Digest) []image.Peer {
	p.cluster.mu.Lock()
	defer p.cluster.mu.Unlock()
	var out []image.Peer
	for name, host := range p.cluster.hosts {
		if name != p.self && host.held()[dgst] {
			out = append(out, image.Peer{Name: name, URL: host.server.URL})
		}
	}
	return out
}

// change alters the truth and tells all hosts.
func (c *cluster) change(do func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	do()
	for _, host := range c.hosts {
		host.keeper.Wake()
	}
}

// newCluster runs keepers on hosts that trust one another's certificates alone.
func newCluster(t *testing.T, names ...string) *cluster {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: image stores mount overlayfs")
	}
	c := &cluster{hosts: map[string]*realHost{}}
	pair, pool := identity(t)
	for _, name := range names {
		store, err := image.Open(t.Context(), image.Config{
			Root: t.TempDir(), Builds: c, Peers: peers{c, name},
			TLS: &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}},
		})
		if err != nil {
			t.Fatal(err)
		}
		server := httptest.NewUnstartedServer(store.Handler())
		server.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert}
		server.StartTLS()
		host := &realHost{name: name, cluster: c, store: store, server: server}
		host.keeper = New(host, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); _ = host.keeper.Run(ctx) }() // returns nil
		host.stop = sync.OnceFunc(func() {
			cancel()
			<-done
			server.Close()
			if err := store.Close(); err != nil {
				t.Error(err)
			}
		})
		t.Cleanup(host.stop)
		c.change(func() { c.hosts[name] = host })
	}
	return c
}

// identity is one certificate for all hosts and both sides.
func identity(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "hosts"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(parsed)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

// make imports content on a host and declares it, as "lighter import" does.
func (c *cluster) make(t *testing.T, host, name string) digest.Digest {
	t.Helper()
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	if err := w.WriteHeader(&tar.Header{Name: "of-" + host, Mode: 0o644}); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	img, err := c.hosts[host].store.Import(t.Context(), &archive, name, "")
	if err != nil {
		t.Fatal(err)
	}
	c.change(func() {
		c.images = append(c.images, Image{Namespace: "team", Names: []string{name}, Digest: img.Target, Node: host})
	})
	return img.Target
}

func (c *cluster) holders(dgst digest.Digest) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []string
	for name, host := range c.hosts {
		if host.held()[dgst] {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

func eventually(t *testing.T, what string, check func() error) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// TestHosts: two of three real hosts keep an image; one that is lost is replaced by
// the third; a name that moves on does not take the content along.
func TestHosts(t *testing.T) {
	const name = "docker.io/library/shop:latest"
	c := newCluster(t, "a", "b", "c")
	dgst := c.make(t, "a", name)
	two := func() error {
		if got := c.holders(dgst); len(got) != 2 {
			return fmt.Errorf("%v hold it", got)
		}
		return nil
	}
	eventually(t, "two hosts hold the image", two)
	eventually(t, "the maker notes it as the namespace's", func() error {
		records, err := c.hosts["a"].store.Built(t.Context())
		if err == nil && !slices.ContainsFunc(records, func(b image.Built) bool { return b.Digest == dgst && !b.Version }) {
			err = fmt.Errorf("records %v", records)
		}
		return err
	})
	// The name under which it came is taken away: the content stays.
	if err := c.hosts["a"].store.Untag(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	if err := c.hosts["a"].store.GC(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := c.holders(dgst); !slices.Contains(got, "a") {
		t.Errorf("%v hold it after its pulled name is gone", got)
	}
	lost := c.hosts["a"]
	c.change(func() { delete(c.hosts, "a") })
	lost.stop()
	eventually(t, "the two hosts that are left hold it", two)
}
