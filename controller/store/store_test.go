package store

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"lighter.dev/lighter/controller/pki"
)

// start opens a store and closes it at the end of the test.
func start(t *testing.T, cfg Config) *Store {
	t.Helper()
	s, err := Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeStore(t, s) })
	return s
}

// closeStore may be called twice.
func closeStore(t *testing.T, s *Store) {
	t.Helper()
	if s.client == nil {
		return
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	s.client = nil
}

func put(t *testing.T, c *clientv3.Client, key, value string) {
	t.Helper()
	if _, err := c.Put(t.Context(), key, value); err != nil {
		t.Fatal(err)
	}
}

func get(t *testing.T, c *clientv3.Client, key string) string {
	t.Helper()
	reply, err := c.Get(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	if len(reply.Kvs) == 0 {
		return ""
	}
	return string(reply.Kvs[0].Value)
}

// TestRestart stops the store right after writes, while a watch and a client of
// the network are open, and starts it again in the same folder and process.
func TestRestart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "etcd")
	const rounds, writes = 3, 200
	for round := range rounds {
		s := start(t, Config{Dir: dir, ClusterID: "a"})
		for i := range round * writes {
			if have := get(t, s.Client(), fmt.Sprintf("/k/%d", i)); have != "v" {
				t.Fatalf("round %d: key %d is lost: %q", round, i, have)
			}
		}
		remote := &Store{transport: s.Transport(), closed: make(chan struct{})}
		if err := remote.dial(); err != nil {
			t.Fatal(err)
		}
		watch := remote.client.Watch(t.Context(), "/k/", clientv3.WithPrefix(), clientv3.WithCreatedNotify())
		<-watch
		for i := range writes {
			put(t, s.Client(), fmt.Sprintf("/k/%d", round*writes+i), "v")
		}
		began := time.Now()
		closeStore(t, remote)
		closeStore(t, s)
		if took := time.Since(began); took > time.Minute {
			t.Errorf("round %d: Close took %s", round, took)
		}
		noOpenFiles(t, dir)
	}
}

// noOpenFiles: whoever deletes or copies the folder after Close must be safe.
func noOpenFiles(t *testing.T, dir string) {
	t.Helper()
	links, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil && strings.HasPrefix(target, dir) {
			t.Errorf("%s is still open", target)
		}
	}
}

func TestInUse(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "etcd")
	start(t, Config{Dir: dir, ClusterID: "a"})
	began := time.Now()
	second, err := Start(t.Context(), Config{Dir: dir, ClusterID: "a"})
	if err == nil {
		t.Fatal(errors.Join(errors.New("two servers share a folder"), second.Close()))
	}
	for _, want := range []string{dir, "in use by another server", "--data-dir"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not say %q", err, want)
		}
	}
	if took := time.Since(began); took > time.Minute {
		t.Errorf("the refusal took %s", took)
	}
}

func TestOtherCluster(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "etcd")
	closeStore(t, start(t, Config{Dir: dir, ClusterID: "a"}))
	s, err := Start(t.Context(), Config{Dir: dir, ClusterID: "b"})
	if err == nil {
		t.Fatal(errors.Join(errors.New("cluster b opens the store of a"), s.Close()))
	}
	for _, want := range []string{"cluster a", "cluster b", "data directory"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not say %q", err, want)
		}
	}
	noOpenFiles(t, dir)
	start(t, Config{Dir: dir, ClusterID: "a"})
}

// TestExternal uses one store's server as the external etcd of others.
func TestExternal(t *testing.T) {
	server := start(t, Config{Dir: filepath.Join(t.TempDir(), "etcd"), ClusterID: "a"})
	at := server.Transport()
	files := TLS{CAFile: at.TrustedCAFile, CertFile: at.CertFile, KeyFile: at.KeyFile}
	client := start(t, Config{Endpoints: at.ServerList, TLS: files, ClusterID: "a"})
	put(t, client.Client(), "/x", "1")
	if have := get(t, server.Client(), "/x"); have != "1" {
		t.Errorf("the server has %q", have)
	}
	if client.InProcess() != nil || client.Failed() != nil {
		t.Error("an external etcd counts as embedded")
	}
	if s, err := Start(t.Context(), Config{Endpoints: at.ServerList, TLS: files, ClusterID: "b"}); err == nil {
		t.Error(errors.Join(errors.New("cluster b uses the etcd of a"), s.Close()))
	}
	wrong := files
	wrong.CertFile = filepath.Join(t.TempDir(), "none.crt")
	if s, err := Start(t.Context(), Config{Endpoints: at.ServerList, TLS: wrong, ClusterID: "a"}); err == nil {
		t.Error(errors.Join(errors.New("a missing certificate is no error"), s.Close()))
	} else if !strings.Contains(err.Error(), wrong.CertFile) {
		t.Errorf("%q does not name the file", err)
	}
}

// TestUnreachable: an etcd that does not answer is an error that names it.
func TestUnreachable(t *testing.T) {
	const nobody = "https://127.0.0.1:1"
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	s, err := Start(ctx, Config{Endpoints: []string{nobody}, ClusterID: "a"})
	if err == nil {
		t.Fatal(errors.Join(errors.New("there is no etcd"), s.Close()))
	}
	if !strings.Contains(err.Error(), nobody) {
		t.Errorf("%q does not say where", err)
	}
}

// TestPrivate: nobody without the client certificate can speak to the server.
func TestPrivate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "etcd")
	s := start(t, Config{Dir: dir})
	at, err := url.Parse(s.Transport().ServerList[0])
	if err != nil {
		t.Fatal(err)
	}
	pem, err := os.ReadFile(s.Transport().TrustedCAFile)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	conn, err := (&tls.Dialer{Config: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}).DialContext(t.Context(), "tcp", at.Host)
	if err == nil {
		// TLS 1.3 tells a client that it is refused when it reads.
		_, err = conn.Read(make([]byte, 1))
		conn.Close()
	}
	if err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("without a certificate: %v", err)
	}
	for _, path := range []string{dir, dir + "-pki", s.Transport().KeyFile} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %s", path, info.Mode())
		}
	}
}

// TestForgottenCerts: the folder's own CA may be lost; the data is not.
func TestForgottenCerts(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "etcd")
	s := start(t, Config{Dir: dir, ClusterID: "a"})
	put(t, s.Client(), "/x", "1")
	closeStore(t, s)
	if err := os.RemoveAll(dir + "-pki"); err != nil {
		t.Fatal(err)
	}
	if _, err := pki.OpenCA(dir+"-pki", "another"); err != nil {
		t.Fatal(err)
	}
	if have := get(t, start(t, Config{Dir: dir, ClusterID: "a"}).Client(), "/x"); have != "1" {
		t.Errorf("read %q", have)
	}
}

func TestExplain(t *testing.T) {
	for text, want := range map[string]string{
		"write wal: no space left on device": "free some space",
		"listen tcp: no such luck":           "start etcd in /d",
	} {
		cause := errors.New(text)
		err := explain(cause, "/d")
		if !strings.Contains(err.Error(), want) || !errors.Is(err, cause) {
			t.Errorf("%q became %q", text, err)
		}
	}
}
