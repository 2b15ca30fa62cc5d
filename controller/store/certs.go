package store

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/containerd/continuity"
	"go.etcd.io/etcd/client/pkg/v3/transport"

	"lighter.dev/lighter/controller/pki"
)

// peerName is in the certificate of every member: whatever address others reach
// it by, this is who they have to find there.
const peerName = "lighter-etcd"

func pkiDir(dir string) string { return dir + "-pki" }

// certFiles are what etcd, its client and its peers prove themselves with: one
// pair for all, as they are one process.
type certFiles struct{ ca, cert, key string }

func filesIn(dir string) certFiles {
	return certFiles{filepath.Join(dir, "ca.crt"), filepath.Join(dir, "etcd.crt"), filepath.Join(dir, "etcd.key")}
}

// ensureCerts makes the embedded etcd's own CA and pair, once. The CA is that of
// the cluster, the pair never leaves this folder, so its life may be as long.
func ensureCerts(dir string) (certFiles, error) {
	files := filesIn(dir)
	ca, err := pki.OpenCA(dir, "lighter-etcd-ca")
	if err != nil {
		return files, err
	}
	if usable(files, ca.Cert) {
		return files, nil
	}
	return files, ca.Issue(files.cert, files.key, pki.Leaf{
		CommonName: "lighter-etcd", DNSNames: []string{"localhost", peerName}, IPs: pki.Loopback(), Life: pki.CALife, Client: true, Server: true,
	})
}

// usable: the pair is there, of this CA, and good for peers, which those of the
// first releases were not.
func usable(files certFiles, ca *x509.Certificate) bool {
	text, err := os.ReadFile(files.cert)
	if err != nil {
		return false
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return false
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil || cert.CheckSignatureFrom(ca) != nil {
		return false
	}
	_, err = os.Stat(files.key)
	return err == nil && slices.Contains(cert.DNSNames, peerName)
}

// peerTLS is for both ends of a connection between members.
func (f certFiles) peerTLS() transport.TLSInfo {
	return transport.TLSInfo{
		CertFile: f.cert, KeyFile: f.key, TrustedCAFile: f.ca, ClientCertAuth: true,
		ServerName: peerName, SkipClientSANVerify: true,
	}
}

// Shared is what the members of a store have in common: the CA of their etcd.
type Shared struct{ CACert, CAKey []byte }

// Shared returns it for a server that joins; it is empty for an external etcd.
func (s *Store) Shared() (Shared, error) {
	if s.peer == nil {
		return Shared{}, nil
	}
	dir := filepath.Dir(s.peer.marker)
	cert, errCert := os.ReadFile(filepath.Join(dir, "ca.crt"))
	key, errKey := os.ReadFile(filepath.Join(dir, "ca.key"))
	if err := errors.Join(errCert, errKey); err != nil {
		return Shared{}, fmt.Errorf("store: %w", err)
	}
	return Shared{CACert: cert, CAKey: key}, nil
}

// Adopt prepares dir for the store of a server that joins. From then on it will
// not be opened as the store of a cluster of its own.
func Adopt(dir string, shared Shared, peerURL string) error {
	if err := os.MkdirAll(pkiDir(dir), 0o700); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	for _, file := range []struct {
		name    string
		content []byte
	}{{peerMarker, []byte(peerURL + "\n")}, {"ca.key", shared.CAKey}, {"ca.crt", shared.CACert}} {
		if err := continuity.AtomicWriteFile(filepath.Join(pkiDir(dir), file.name), file.content, 0o600); err != nil {
			return fmt.Errorf("store: %w", err)
		}
	}
	return nil
}
