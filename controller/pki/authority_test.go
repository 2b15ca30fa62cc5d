package pki

import (
	"bytes"
	"crypto/x509"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/tools/clientcmd"
)

func open(t *testing.T, cfg Config) *Authority {
	t.Helper()
	a, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func testConfig(t *testing.T) Config {
	t.Helper()
	return Config{Dir: filepath.Join(t.TempDir(), "pki"), Names: []string{"localhost", "kubernetes"}, IPs: []net.IP{net.IPv4(10, 0, 0, 1)}}
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func cert(t *testing.T, path string) *x509.Certificate {
	t.Helper()
	c, err := parseCert(readFile(t, path))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestOpenTwice(t *testing.T) {
	cfg := testConfig(t)
	a := open(t, cfg)
	entries, err := os.ReadDir(cfg.Dir)
	if err != nil {
		t.Fatal(err)
	}
	before := map[string][]byte{}
	for _, entry := range entries {
		before[entry.Name()] = readFile(t, a.file(entry.Name()))
		info, err := entry.Info()
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %s", entry.Name(), info.Mode())
		}
	}
	if info, err := os.Stat(cfg.Dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the folder: %v, %v", info.Mode(), err)
	}
	const files = 10 // three pairs, the CA's, and two keys
	if len(before) != files {
		t.Errorf("%d files: %v", len(before), entries)
	}
	again := open(t, cfg)
	for name, text := range before {
		if !bytes.Equal(readFile(t, a.file(name)), text) {
			t.Errorf("%s is another at the second start", name)
		}
	}
	if again.ClusterID() != a.ClusterID() || a.ClusterID() == open(t, testConfig(t)).ClusterID() {
		t.Error("the cluster's ID does not follow its CA")
	}
}

func TestCertificates(t *testing.T) {
	a := open(t, testConfig(t))
	pool := x509.NewCertPool()
	pool.AddCert(a.Cert)
	crt, _ := a.ServerCert()
	server := cert(t, crt)
	for _, name := range []string{"localhost", "kubernetes", "10.0.0.1"} {
		if _, err := server.Verify(x509.VerifyOptions{Roots: pool, DNSName: name, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}); err != nil {
			t.Errorf("server as %s: %v", name, err)
		}
	}
	crt, _ = a.KubeletClientCert()
	client := cert(t, crt)
	if _, err := client.Verify(x509.VerifyOptions{Roots: pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		t.Errorf("kubelet client: %v", err)
	}
	if _, err := client.Verify(x509.VerifyOptions{Roots: pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}); err == nil {
		t.Error("a client's certificate can serve")
	}
	if client.Subject.CommonName != KubeletClientName || client.Subject.Organization[0] != AdminGroup {
		t.Errorf("kubelet client is %s", client.Subject)
	}
}

func TestRenew(t *testing.T) {
	cfg := testConfig(t)
	a := open(t, cfg)
	crt, key := a.ServerCert()
	leaf := a.leaves()["server"]
	for _, test := range []struct {
		name   string
		change func(t *testing.T) *Authority
		want   string
	}{
		{"at once", func(*testing.T) *Authority { return a }, ""},
		{"before its time", func(*testing.T) *Authority { return at(a, LeafLife*6/10) }, ""},
		{"near its end", func(*testing.T) *Authority { return at(a, LeafLife*8/10) }, "near its end"},
		{"after its end", func(*testing.T) *Authority { return at(a, LeafLife*2) }, "near its end"},
		{"no certificate", func(t *testing.T) *Authority { remove(t, crt); return a }, "missing"},
		{"no key", func(t *testing.T) *Authority { remove(t, key); return a }, key},
		{"a broken certificate", func(t *testing.T) *Authority { overwrite(t, crt); return a }, "no PEM"},
		{"a broken key", func(t *testing.T) *Authority { overwrite(t, key); return a }, key},
		{"another CA", func(t *testing.T) *Authority { return &Authority{CA: open(t, testConfig(t)).CA, cfg: a.cfg} }, "of another CA"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if err := a.Renew(); err != nil { // mends what the last case has done
				t.Fatal(err)
			}
			now := test.change(t)
			if why := now.stale(crt, key, leaf); why != test.want && (test.want == "" || !strings.Contains(why, test.want)) {
				t.Fatalf("stale: %q, want %q", why, test.want)
			}
			if err := now.Renew(); err != nil {
				t.Fatal(err)
			}
			if why := now.stale(crt, key, leaf); why != "" {
				t.Errorf("still stale: %s", why)
			}
		})
	}
}

func TestOtherNames(t *testing.T) {
	cfg := testConfig(t)
	open(t, cfg)
	for _, change := range []func(*Config){
		func(c *Config) { c.Names = []string{"localhost", "other"} },
		func(c *Config) { c.IPs = append(c.IPs, net.ParseIP("fd00::1")) },
	} {
		change(&cfg)
		a := open(t, cfg)
		crt, _ := a.ServerCert()
		for _, name := range cfg.Names {
			if err := cert(t, crt).VerifyHostname(name); err != nil {
				t.Error(err)
			}
		}
		for _, ip := range cfg.IPs {
			if err := cert(t, crt).VerifyHostname(ip.String()); err != nil {
				t.Error(err)
			}
		}
	}
}

// at is the authority as it will be after some time.
func at(a *Authority, later time.Duration) *Authority {
	ca := *a.CA
	ca.now = func() time.Time { return time.Now().Add(later) }
	return &Authority{CA: &ca, cfg: a.cfg}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

func overwrite(t *testing.T, path string) {
	t.Helper()
	if err := os.WriteFile(path, []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestLostCA(t *testing.T) {
	cfg := testConfig(t)
	a := open(t, cfg)
	remove(t, a.file("ca.key"))
	_, err := Open(cfg)
	if err == nil || !strings.Contains(err.Error(), "restore the key") {
		t.Errorf("a lost CA key: %v", err)
	}
	// The certificate is written last, so a lone key is a start that was cut off.
	half := testConfig(t)
	remove(t, open(t, half).CAFile())
	if _, err := Open(half); err != nil {
		t.Errorf("a lone key: %v", err)
	}
	overwrite(t, filepath.Join(half.Dir, "ca.crt"))
	if _, err := Open(half); err == nil || !strings.Contains(err.Error(), "ca.crt") {
		t.Errorf("a broken CA: %v", err)
	}
}

// TestEndOfCA: nothing outlives the CA, and an expired one signs nothing.
func TestEndOfCA(t *testing.T) {
	a := open(t, testConfig(t))
	public := a.key.Public()
	for _, test := range []struct {
		after   time.Duration
		life    time.Duration
		refused bool
	}{
		{0, 0, false}, {0, time.Hour, false}, {CALife - time.Hour, LeafLife, false}, {CALife + time.Hour, time.Hour, true},
	} {
		text, err := at(a, test.after).Sign(Leaf{CommonName: "x", Client: true, Life: test.life}, public)
		if test.refused {
			if err == nil {
				t.Errorf("signed %s after the CA was made", test.after)
			}
			continue
		}
		if err != nil {
			t.Error(err)
			continue
		}
		c, err := parseCert(text)
		if err != nil {
			t.Fatal(err)
		}
		if c.NotAfter.After(a.Cert.NotAfter) {
			t.Errorf("%s after the CA was made: a leaf ends %s after the CA", test.after, c.NotAfter.Sub(a.Cert.NotAfter))
		}
		if want := time.Now().Add(test.after + test.life); test.life == time.Hour && c.NotAfter.Sub(want).Abs() > time.Minute {
			t.Errorf("a leaf of an hour ends at %s", c.NotAfter)
		}
	}
}

func TestKubeconfig(t *testing.T) {
	a := open(t, testConfig(t))
	path := filepath.Join(t.TempDir(), "admin.kubeconfig")
	if err := os.WriteFile(path, []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := a.WriteKubeconfig(path, "https://127.0.0.1:6443"); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	config, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		t.Fatal(err)
	}
	if config.Host != "https://127.0.0.1:6443" || !bytes.Equal(config.CAData, a.PEM) {
		t.Errorf("host %s", config.Host)
	}
	admin, err := parseCert(config.CertData)
	if err != nil || admin.Subject.CommonName != AdminName {
		t.Errorf("admin is %v, %v", admin.Subject, err)
	}
	if err := a.WriteKubeconfig(filepath.Join(path, "below", "a", "file"), "x"); err == nil {
		t.Error("writing below a file is no error")
	}
}

// TestRun stops on its context and does not wait for the next look.
func TestRun(t *testing.T) {
	a := open(t, testConfig(t))
	ended := make(chan error)
	ctx := t.Context()
	go func() { ended <- a.Run(ctx) }()
	t.Cleanup(func() {
		select {
		case err := <-ended:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(time.Minute):
			t.Error(errors.New("still running"))
		}
	})
}
