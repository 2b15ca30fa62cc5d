// Package pki is the cluster's identity: its CA, the certificates of the server
// itself, the keys of service account tokens and of encryption at rest, and the
// signer of the agents' certificate requests.
//
//	ca.go         a CA on disk: make, load, sign
//	authority.go  all the files of a server, renewed while it runs
//	share.go      what the servers of a cluster have in common
//	kubeconfig.go the admin's kubeconfig
//	signer.go     approves and signs the agents' CertificateSigningRequests
//	rules.go      which of them are right: pure
package pki

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"
)

const (
	// KubeletClientName is how the API server introduces itself to agents.
	KubeletClientName = "kube-apiserver-kubelet-client"
	// AdminName is the user of the admin's kubeconfig.
	AdminName = "lighter-admin"
	// AdminGroup may do everything (RBAC's built-in superusers).
	AdminGroup = "system:masters"

	// renewAt is the part of a certificate's life after which it is renewed.
	renewAt = 0.7
	// renewEvery is how often Run looks.
	renewEvery = time.Hour
)

// Config says what the server's certificate is for.
type Config struct {
	Dir string
	// Names and IPs are what clients may call the server.
	Names []string
	IPs   []net.IP
	Log   *slog.Logger
}

// Authority is the identity of one cluster, in files that only root can read.
type Authority struct {
	*CA
	cfg Config
}

// Open makes what is missing and renews what is old.
func Open(cfg Config) (*Authority, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	ca, err := OpenCA(cfg.Dir, "lighter-ca")
	if err != nil {
		return nil, err
	}
	a := &Authority{CA: ca, cfg: cfg}
	if err := errors.Join(a.ensureServiceAccountKey(), a.ensureEncryption(), a.Renew()); err != nil {
		return nil, err
	}
	return a, nil
}

// CAFile is the cluster's CA certificate.
func (a *Authority) CAFile() string { return a.file("ca.crt") }

// ServerCert is the pair that the API server serves with.
func (a *Authority) ServerCert() (crt, key string) { return a.pair("server") }

// KubeletClientCert is the pair that the API server shows to agents.
func (a *Authority) KubeletClientCert() (crt, key string) { return a.pair("kubelet-client") }

// ServiceAccountKeyFile is the key that service account tokens are signed with.
func (a *Authority) ServiceAccountKeyFile() string { return a.file("service-account.key") }

// EncryptionFile is the API server's EncryptionConfiguration.
func (a *Authority) EncryptionFile() string { return a.file("encryption.yaml") }

func (a *Authority) file(name string) string { return filepath.Join(a.cfg.Dir, name) }
func (a *Authority) pair(name string) (crt, key string) {
	return a.file(name + ".crt"), a.file(name + ".key")
}

// ClusterID names the cluster: it follows from its CA.
func (a *Authority) ClusterID() string {
	sum := sha256.Sum256(a.Cert.Raw)
	return hex.EncodeToString(sum[:16])
}

// leaves are the certificates that the server needs for itself.
func (a *Authority) leaves() map[string]Leaf {
	return map[string]Leaf{
		"server":         {CommonName: "lighter-server", DNSNames: a.cfg.Names, IPs: a.cfg.IPs, Server: true},
		"kubelet-client": {CommonName: KubeletClientName, Organizations: []string{AdminGroup}, Client: true},
		"admin":          {CommonName: AdminName, Organizations: []string{AdminGroup}, Client: true},
	}
}

// Renew issues the certificates that are missing, near their end, of another CA
// or for other names than wanted.
func (a *Authority) Renew() error {
	for name, leaf := range a.leaves() {
		crt, key := a.pair(name)
		why := a.stale(crt, key, leaf)
		if why == "" {
			continue
		}
		if err := a.Issue(crt, key, leaf); err != nil {
			return err
		}
		a.cfg.Log.Info("certificate issued", "name", name, "why", why)
	}
	return nil
}

// Run renews certificates until ctx ends. The API server reloads their files.
func (a *Authority) Run(ctx context.Context) error {
	tick := time.NewTicker(renewEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if err := a.Renew(); err != nil {
				a.cfg.Log.Error("certificates are not renewed; trying again", "in", renewEvery, "error", err)
			}
		}
	}
}

// stale says why a certificate has to be issued anew, or "".
func (a *Authority) stale(crtFile, keyFile string, want Leaf) string {
	text, err := os.ReadFile(crtFile)
	if errors.Is(err, fs.ErrNotExist) {
		return "missing"
	}
	if err != nil {
		return err.Error()
	}
	cert, err := parseCert(text)
	if err != nil {
		return err.Error()
	}
	if _, err := readKey(keyFile); err != nil {
		return err.Error()
	}
	life := cert.NotAfter.Sub(cert.NotBefore)
	switch {
	case cert.CheckSignatureFrom(a.Cert) != nil:
		return "of another CA"
	case a.now().After(cert.NotBefore.Add(time.Duration(float64(life) * renewAt))):
		return "near its end"
	case cert.Subject.CommonName != want.CommonName,
		!slices.Equal(cert.Subject.Organization, want.Organizations),
		!slices.Equal(cert.DNSNames, want.DNSNames),
		!slices.EqualFunc(cert.IPAddresses, want.IPs, net.IP.Equal):
		return "for other names"
	}
	return ""
}

func (a *Authority) ensureServiceAccountKey() error {
	path := a.ServiceAccountKeyFile()
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("pki: make a key: %w", err)
	}
	return writeKey(path, key)
}

// encryption is the API server's EncryptionConfiguration: Secrets are sealed
// (XSalsa20-Poly1305) before they reach etcd.
const encryption = `apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
- resources: [secrets]
  providers:
  - secretbox:
      keys:
      - name: key1
        secret: %s
`

func (a *Authority) ensureEncryption() error {
	path := a.EncryptionFile()
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	key := make([]byte, 32)
	if _, err := rand.Read(key); err != nil {
		return fmt.Errorf("pki: make a key: %w", err)
	}
	return writeFile(path, fmt.Appendf(nil, encryption, base64.StdEncoding.EncodeToString(key)))
}
