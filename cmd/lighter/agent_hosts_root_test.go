package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io/fs"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestListeners(t *testing.T) {
	tls := []string{"--tls-ca=/ca", "--tls-cert=/cert", "--tls-key=/key"}
	tests := []struct {
		name string
		args []string
		want []listenAddress
		err  string
	}{
		{name: "default", want: []listenAddress{{"unix", "/run/lighter/agent.sock"}}},
		{name: "default of another run folder", args: []string{"--run-dir=/tmp/x"}, want: []listenAddress{{"unix", "/tmp/x/agent.sock"}}},
		{name: "socket elsewhere", args: []string{"--hosts=unix:///tmp//a.sock"}, want: []listenAddress{{"unix", "/tmp/a.sock"}}},
		{name: "both", args: append(tls, "--hosts=unix:///a", "--hosts=tcp://10.0.0.1:2376"), want: []listenAddress{{"unix", "/a"}, {"tcp", "10.0.0.1:2376"}}},
		{name: "IPv6", args: append(tls, "--hosts=tcp://[::1]:2376"), want: []listenAddress{{"tcp", "[::1]:2376"}}},
		{name: "TCP without TLS", args: []string{"--hosts=tcp://0.0.0.0:2375"}, err: "--hosts: tcp://0.0.0.0:2375 needs --tls-ca, --tls-cert and --tls-key"},
		{name: "TCP with half of TLS", args: []string{"--hosts=tcp://0.0.0.0:2375", "--tls-cert=/c", "--tls-key=/k"}, err: "needs --tls-ca"},
		{name: "TLS without TCP", args: []string{"--tls-ca=/ca"}, err: "no tcp:// among them"},
		{name: "twice", args: []string{"--hosts=unix:///a,unix:///a"}, err: "unix:///a is given twice"},
		{name: "a path alone", args: []string{"--hosts=/run/x.sock"}, err: "want unix://PATH or tcp://ADDR:PORT"},
		{name: "relative", args: []string{"--hosts=unix://x.sock"}, err: "want an absolute path"},
		{name: "long", args: []string{"--hosts=unix:///" + strings.Repeat("x", 100)}, err: "longer than"},
		{name: "a name", args: append(tls, "--hosts=tcp://host-1:2376"), err: "want an address and a port"},
		{name: "HTTP", args: []string{"--hosts=http://10.0.0.1:80"}, err: "want unix://PATH or tcp://ADDR:PORT"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			options := parseAgent(t, tt.args...)
			got, err := options.hosts.listeners(options.runDir)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("error %v, want %q", err, tt.err)
				}
				return
			}
			if err != nil || !slices.Equal(got, tt.want) {
				t.Errorf("got %v, %v; want %v", got, err, tt.want)
			}
		})
	}
	if err := parseAgent(t, "--socket-group=no-such-group").checkFiles(); err == nil || !strings.Contains(err.Error(), `--socket-group: "no-such-group"`) {
		t.Errorf("an unknown group: %v", err)
	}
	if err := parseAgent(t, append(tls, "--hosts=tcp://127.0.0.1:1")...).checkFiles(); err == nil || !strings.Contains(err.Error(), "--tls-ca: open /ca") || !strings.Contains(err.Error(), "--tls-cert") {
		t.Errorf("missing files: %v", err)
	}
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: sockets are given to root")
	}
}

// TestSocket: who may use a socket, and what may be in its place.
func TestSocket(t *testing.T) {
	needRoot(t)
	path := filepath.Join(t.TempDir(), "run", "agent.sock")
	open := func(group int) net.Listener {
		t.Helper()
		listener, err := listenSocket(t.Context(), path, group)
		if err != nil {
			t.Fatal(err)
		}
		return listener
	}
	for group, want := range map[int]fs.FileMode{0: 0o600, 12: 0o660} {
		listener := open(group)
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if st := info.Sys().(*syscall.Stat_t); info.Mode().Perm() != want || st.Uid != 0 || st.Gid != uint32(group) {
			t.Errorf("group %d: mode %v, owner %d:%d", group, info.Mode(), st.Uid, st.Gid)
		}
		if _, err := listenSocket(t.Context(), path, 0); err == nil || !strings.Contains(err.Error(), "another process answers there") {
			t.Errorf("a second agent: %v", err)
		}
		if err := listener.Close(); err != nil {
			t.Error(err)
		}
		if _, err := os.Lstat(path); !os.IsNotExist(err) {
			t.Errorf("after the stop: %v", err)
		}
	}
	// A killed agent leaves the file; the next takes its place, and the late end of
	// the first does not touch it.
	first := open(0)
	if err := first.(*socket).UnixListener.Close(); err != nil {
		t.Fatal(err)
	}
	second := open(0)
	_ = first.Close() // closed already
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("the second agent's socket is gone: %v", err)
	}
	if err := second.Close(); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := listenSocket(t.Context(), path, 0); err == nil || !strings.Contains(err.Error(), "a file that is no socket") {
		t.Errorf("a file in its place: %v", err)
	}
	if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) != 1 {
		t.Errorf("left over: %v, %v", left, err)
	}
}

// certificates writes a CA and a certificate of it that works on both sides.
func certificates(t *testing.T) tlsFiles {
	t.Helper()
	dir := t.TempDir()
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, kind string, der []byte, err error) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err == nil {
			err = os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		return path
	}
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, &caKey.PublicKey, caKey)
	files := tlsFiles{ca: write("ca.pem", "CERTIFICATE", der, err)}
	der, err = x509.CreateCertificate(rand.Reader, leaf, ca, &key.PublicKey, caKey)
	files.cert = write("cert.pem", "CERTIFICATE", der, err)
	der, err = x509.MarshalPKCS8PrivateKey(key)
	files.key = write("key.pem", "PRIVATE KEY", der, err)
	return files
}

// TestLocalAPI: each listener answers whom it should, and nobody else.
func TestLocalAPI(t *testing.T) {
	needRoot(t)
	own, foreign := certificates(t), certificates(t)
	h := &host{log: slog.New(slog.DiscardHandler), options: parseAgent(t, "--run-dir="+t.TempDir(), "--hosts=tcp://127.0.0.1:0",
		"--tls-ca="+own.ca, "--tls-cert="+own.cert, "--tls-key="+own.key).agentOptions}
	socket := filepath.Join(h.options.runDir, "agent.sock")
	h.options.hosts.addresses = append(h.options.hosts.addresses, schemeUnix+socket)
	if err := h.options.checkFiles(); err != nil {
		t.Fatal(err)
	}
	listeners, err := h.listenLocal(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `[{"digest":"here"}]`) })
	for _, listener := range listeners {
		go func() {
			if err := h.serveLocal(t.Context(), listener, handler); err != nil {
				t.Error(err)
			}
		}()
	}
	tcp := schemeTCP + listeners[0].Addr().String()
	certDir := map[string]string{envCertPath: filepath.Dir(own.ca)}
	tests := []struct {
		name  string
		flags hostFlags
		env   map[string]string
		err   string // "" is an answer
	}{
		{name: "socket", flags: hostFlags{host: schemeUnix + socket}},
		{name: "socket by the environment", env: map[string]string{envHost: schemeUnix + socket}},
		{name: "TCP", flags: hostFlags{host: tcp, tls: own}},
		{name: "TCP with a folder", flags: hostFlags{host: tcp}, env: certDir},
		{name: "TCP without certificates", flags: hostFlags{host: tcp}, err: "needs --tls-ca, --tls-cert and --tls-key"},
		{name: "a client of another CA", flags: hostFlags{host: tcp, tls: tlsFiles{own.ca, foreign.cert, foreign.key}}, err: "certificate"},
		{name: "a host of another CA", flags: hostFlags{host: tcp, tls: foreign}, err: "certificate"},
		{name: "no scheme", flags: hostFlags{host: "10.0.0.1:80"}, err: "want unix://PATH or tcp://HOST:PORT"},
		{name: "no port", env: map[string]string{envHost: "tcp://host-1"}, err: envHost},
		{name: "nobody there", flags: hostFlags{host: "unix:///none.sock"}, err: "/none.sock"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			client, err := tt.flags.client(func(name string) string { return tt.env[name] })
			if err == nil {
				list, asked := client.Images(t.Context(), "")
				if err = asked; err == nil && (len(list) != 1 || list[0].Digest != "here") {
					t.Errorf("answer %v", list)
				}
			}
			if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
				t.Errorf("error %v, want %q", err, tt.err)
			}
		})
	}
	if client, err := (&hostFlags{}).client(func(string) string { return "" }); client != nil || err != nil {
		t.Errorf("without a host: %v, %v", client, err)
	}
	// Go's server tells a client without TLS so (400).
	response, err := http.Get("http://" + listeners[0].Addr().String())
	if err == nil && response.StatusCode == http.StatusOK {
		t.Error("plain HTTP was answered")
	}
}
