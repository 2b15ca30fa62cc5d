package identity

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/client-go/rest"
)

// patience bounds what has to happen soon.
const patience = 30 * time.Second

func (f *fakeAPI) config(t *testing.T) Config {
	t.Helper()
	return Config{
		Server: f.URL, Token: f.token.String(), NodeName: "n1", NodeIPs: []netip.Addr{netip.MustParseAddr("127.0.0.1")},
		Dir: filepath.Join(t.TempDir(), "id"),
	}
}

func bootstrap(t *testing.T, cfg Config) (*Identity, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	return Bootstrap(ctx, cfg)
}

func mustBootstrap(t *testing.T, cfg Config) *Identity {
	t.Helper()
	i, err := bootstrap(t, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// run runs the identity until the returned function, or the test's end.
func run(t *testing.T, i *Identity) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- i.Run(ctx) }()
	stopped := false
	stop = func() {
		cancel()
		if stopped {
			return
		}
		stopped = true
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
	t.Cleanup(stop)
	return stop
}

func awaitServing(t *testing.T, i *Identity) {
	t.Helper()
	select {
	case <-i.ServingReady():
	case <-time.After(patience):
		t.Fatal("no serving certificate")
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

// refused checks an error that users read.
func refused(t *testing.T, err error, want ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want %q", want)
	}
	for _, w := range want {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error is\n%s\nwithout %q", err, w)
		}
	}
	tidy(t, err)
}

func tidy(t *testing.T, err error) {
	t.Helper()
	text := err.Error()
	if strings.ContainsAny(text, "\n\t") || strings.Contains(text, "  ") || strings.Contains(text, ": :") || strings.HasSuffix(text, ": ") || !strings.HasPrefix(text, "identity: ") || strings.Count(text, "identity: ") != 1 {
		t.Errorf("untidy error: %q", text)
	}
}

// talk has two identities speak to each other and returns whom the server saw.
func talk(client *tls.Config, server *tls.Config, name string) (string, error) {
	listener, err := tls.Listen("tcp", "127.0.0.1:0", server)
	if err != nil {
		return "", err
	}
	defer listener.Close()
	saw := make(chan string, 1)
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			saw <- err.Error()
			return
		}
		defer conn.Close()
		secured := conn.(*tls.Conn)
		if err := secured.Handshake(); err != nil {
			saw <- err.Error()
			return
		}
		who := "nobody"
		if certs := secured.ConnectionState().PeerCertificates; len(certs) > 0 {
			who = certs[0].Subject.CommonName
		}
		saw <- who
	}()
	client = client.Clone()
	client.ServerName = name
	conn, err := (&tls.Dialer{NetDialer: &net.Dialer{Timeout: patience}, Config: client}).Dial("tcp", listener.Addr().String())
	if err != nil {
		return "", err
	}
	defer conn.Close()
	return <-saw, nil
}

// works checks that i is n1 and can both call and be called.
func works(t *testing.T, i *Identity) {
	t.Helper()
	for _, name := range []string{"127.0.0.1", "n1"} {
		who, err := talk(i.ClientTLS(), i.ServingTLS(), name)
		if err != nil || who != "system:node:n1" {
			t.Errorf("by %s: server saw %q, error %v", name, who, err)
		}
	}
	if i.NodeName() != "n1" {
		t.Errorf("NodeName is %s", i.NodeName())
	}
}

// joined makes a folder of a member with both certificates.
func (f *fakeAPI) joined(t *testing.T) Config {
	t.Helper()
	cfg := f.config(t)
	i := mustBootstrap(t, cfg)
	stop := run(t, i)
	awaitServing(t, i)
	stop()
	return cfg
}

// plant writes a client certificate into a folder.
func plant(t *testing.T, ca *testCA, cfg Config, file string, begin, end time.Time) {
	t.Helper()
	cert, key := ca.pair(t, "system:node:"+cfg.NodeName, begin, end)
	write(t, cfg, file, string(cert)+string(key))
}

func write(t *testing.T, cfg Config, file, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(cfg.Dir, file), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, cfg Config, file string) {
	t.Helper()
	if err := os.Remove(filepath.Join(cfg.Dir, file)); err != nil {
		t.Fatal(err)
	}
}

func files(t *testing.T, cfg Config) string {
	t.Helper()
	entries, err := os.ReadDir(cfg.Dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return strings.Join(names, " ")
}

const allFiles = "ca.crt client.pem node.json serving.pem"

func TestFirstJoin(t *testing.T) {
	t.Parallel()
	f := newFakeAPI(t)
	cfg := f.config(t)
	i := mustBootstrap(t, cfg)
	select {
	case <-i.ServingReady():
		t.Error("ServingReady before there is a serving certificate")
	default:
	}
	if _, err := i.ServingTLS().GetCertificate(nil); err == nil || err.Error() != "node n1: there is no serving certificate yet" {
		t.Errorf("before Run: %v", err)
	}
	run(t, i)
	awaitServing(t, i)
	works(t, i)
	checkRequests(t, f)
	if got := files(t, cfg); got != allFiles {
		t.Errorf("files: %s", got)
	}
	client, err := rest.HTTPClientFor(i.ClientConfig())
	if err != nil {
		t.Fatal(err)
	}
	response, err := client.Get(f.URL + "/apis/certificates.k8s.io/v1/certificatesigningrequests/csr-0")
	if err != nil || response.StatusCode != http.StatusOK {
		t.Errorf("ClientConfig: %v %v", response, err)
	}
	response.Body.Close()
}

// checkRequests looks at what a first join has asked for.
func checkRequests(t *testing.T, f *fakeAPI) {
	t.Helper()
	for _, want := range []struct{ signer, user, usages, dns, ips string }{
		{certificatesv1.KubeAPIServerClientKubeletSignerName, "system:bootstrap:abcdef", "[digital signature client auth]", "[]", "[]"},
		{certificatesv1.KubeletServingSignerName, "system:node:n1", "[digital signature server auth]", "[n1]", "[127.0.0.1]"},
	} {
		requests := f.asks(want.signer)
		if len(requests) != 1 {
			t.Errorf("%d requests for %s", len(requests), want.signer)
			continue
		}
		request, err := asked(requests[0])
		if err != nil {
			t.Fatal(err)
		}
		spec := requests[0].Spec
		if spec.Username != want.user || fmt.Sprint(spec.Usages) != want.usages {
			t.Errorf("%s: asked by %s for %s", want.signer, spec.Username, spec.Usages)
		}
		if got := request.Subject.String(); got != "CN=system:node:n1,O=system:nodes" {
			t.Errorf("%s: subject %s", want.signer, got)
		}
		if fmt.Sprint(request.DNSNames) != want.dns || fmt.Sprint(request.IPAddresses) != want.ips {
			t.Errorf("%s: names %s, addresses %s", want.signer, request.DNSNames, request.IPAddresses)
		}
	}
}

func TestRestartOffline(t *testing.T) {
	t.Parallel()
	f := newFakeAPI(t)
	cfg := f.joined(t)
	f.stop()
	for _, token := range []string{"", cfg.Token} {
		cfg.Token = token
		begin := time.Now()
		i := mustBootstrap(t, cfg)
		if took := time.Since(begin); took > 20*time.Second {
			t.Errorf("took %s", took)
		}
		stop := run(t, i)
		awaitServing(t, i)
		works(t, i)
		stop()
	}
}

func TestStrangersAreNotTrusted(t *testing.T) {
	t.Parallel()
	f, other := newFakeAPI(t), newFakeAPI(t)
	a, b := mustBootstrap(t, f.joined(t)), mustBootstrap(t, other.joined(t))
	if who, err := talk(a.ClientTLS(), b.ServingTLS(), "127.0.0.1"); err == nil {
		t.Errorf("called another cluster's agent as %s", who)
	}
	caller := b.ClientTLS()
	caller.RootCAs = a.CAPool()
	if who, err := talk(caller, a.ServingTLS(), "127.0.0.1"); err == nil && !strings.Contains(who, "unknown authority") {
		t.Errorf("another cluster's agent was taken for %s", who)
	}
	nobody := &tls.Config{RootCAs: a.CAPool(), MinVersion: tls.VersionTLS12}
	if who, err := talk(nobody, a.ServingTLS(), "127.0.0.1"); err != nil || who != "nobody" {
		t.Errorf("a caller without a certificate: %s, %v", who, err)
	}
}

func TestOnlyTheCAOfTheTokenIsTrusted(t *testing.T) {
	t.Parallel()
	f, evil := newFakeAPI(t), newCA(t)
	f.set(func() { f.bundle = append(append([]byte{}, f.ca.pem...), evil.pem...) })
	cfg := f.config(t)
	i := mustBootstrap(t, cfg)
	text, err := os.ReadFile(filepath.Join(cfg.Dir, caFile))
	if err != nil || string(text) != string(f.ca.pem) {
		t.Errorf("kept CA: %s, %v", text, err)
	}
	cert, err := tls.X509KeyPair(evil.pair(t, "n1", time.Now().Add(-time.Hour), time.Now().Add(time.Hour)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cert.Leaf.Verify(x509.VerifyOptions{Roots: i.CAPool()}); err == nil {
		t.Error("a CA that was smuggled in behind the right one is trusted")
	}
}

func TestFileModes(t *testing.T) {
	t.Parallel()
	f := newFakeAPI(t)
	cfg := f.config(t)
	if err := os.MkdirAll(cfg.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	i := mustBootstrap(t, cfg)
	run(t, i)
	awaitServing(t, i)
	if err := filepath.WalkDir(cfg.Dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := os.Lstat(path)
		if err != nil {
			return err
		}
		want := fs.FileMode(0o600)
		if info.IsDir() {
			want = fs.ModeDir | 0o700
		}
		if info.Mode() != want {
			t.Errorf("%s has mode %s, want %s", path, info.Mode(), want)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}
