package stream

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// issuer signs client certificates.
type issuer struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newIssuer(t *testing.T) issuer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return issuer{cert, key}
}

func (i issuer) issue(t *testing.T, name string, groups ...string) tls.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotAfter: time.Now().Add(time.Hour), Subject: pkix.Name{CommonName: name, Organization: groups},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, i.cert, &i.key.PublicKey, i.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: i.key}
}

// TestByCertificate: who may ask an agent what, over TLS.
func TestByCertificate(t *testing.T) {
	ours, foreign := newIssuer(t), newIssuer(t)
	serves := func(what string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, what) })
	}
	server := httptest.NewUnstartedServer(NewHandler(Config{
		Authorize: ByCertificate("/content/"), Extra: map[string]http.Handler{"/content/": serves("content"), "/build/": serves("build")},
	}))
	pool := x509.NewCertPool()
	pool.AddCert(ours.cert)
	// As the agent's endpoint: who has no certificate is told so by the handler.
	server.TLS = &tls.Config{ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: pool}
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	server.StartTLS()
	defer server.Close()
	const content, build = "/content/sha256:0", "/build/default/shop"
	tests := []struct {
		name, path string
		client     []tls.Certificate
		code       int    // 0 if the connection is refused
		by         string // who serves it
	}{
		{"nobody", content, nil, http.StatusUnauthorized, ""},
		{"nobody, whether the agent lives", "/healthz", nil, http.StatusUnauthorized, ""},
		{"a certificate of another cluster", content, []tls.Certificate{foreign.issue(t, "system:node:host-2", nodeGroup)}, 0, ""},
		{"the API server", build, []tls.Certificate{ours.issue(t, apiServerClient)}, http.StatusOK, "build"},
		{"an administrator", build, []tls.Certificate{ours.issue(t, "admin", adminGroup)}, http.StatusOK, "build"},
		{"another host, for content", content, []tls.Certificate{ours.issue(t, "system:node:host-2", nodeGroup)}, http.StatusOK, "content"},
		{"another host, for a build", build, []tls.Certificate{ours.issue(t, "system:node:host-2", nodeGroup)}, http.StatusForbidden, ""},
		{"another host, for a container", "/exec/default/web/c", []tls.Certificate{ours.issue(t, "system:node:host-2", nodeGroup)}, http.StatusForbidden, ""},
		{"another host, by a detour", "/content/../build/default/shop", []tls.Certificate{ours.issue(t, "system:node:host-2", nodeGroup)}, http.StatusForbidden, ""},
		{"another host, by a detour that is encoded", "/content/%2e%2e/build/default/shop", []tls.Certificate{ours.issue(t, "system:node:host-2", nodeGroup)}, http.StatusOK, "content"},
		{"a user", content, []tls.Certificate{ours.issue(t, "ann", "team")}, http.StatusForbidden, ""},
		{"a user who is called like a host", content, []tls.Certificate{ours.issue(t, "system:node:host-2")}, http.StatusForbidden, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: server.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs, Certificates: tt.client}}
			defer transport.CloseIdleConnections()
			resp, err := (&http.Client{Transport: transport}).Get(server.URL + tt.path)
			if err != nil {
				if tt.code != 0 {
					t.Fatal(err)
				}
				return
			}
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			if err != nil || resp.StatusCode != tt.code || tt.by != "" && string(body) != tt.by {
				t.Errorf("answer %s %q, %v, want %d by %q", resp.Status, body, err, tt.code, tt.by)
			}
		})
	}
}
