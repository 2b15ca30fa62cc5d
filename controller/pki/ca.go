package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/continuity"
	"k8s.io/client-go/util/keyutil"
)

const (
	// CALife is how long a CA is valid. It is the one thing that does not renew itself.
	CALife = 10 * 365 * 24 * time.Hour
	// LeafLife is how long the server's own certificates and those of agents are valid.
	LeafLife = 365 * 24 * time.Hour
	// backdate allows for clocks that are behind ours.
	backdate = 5 * time.Minute
)

// CA signs certificates.
type CA struct {
	Cert *x509.Certificate
	// PEM is the certificate as others get it.
	PEM []byte
	key crypto.Signer
	now func() time.Time
}

// OpenCA loads dir/ca.crt and dir/ca.key, or makes them. dir becomes readable
// by its owner only.
func OpenCA(dir, commonName string) (*CA, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("pki: %w", err)
	}
	certFile, keyFile := filepath.Join(dir, "ca.crt"), filepath.Join(dir, "ca.key")
	ca, err := loadCA(certFile, keyFile)
	if !errors.Is(err, fs.ErrNotExist) {
		return ca, err
	}
	if _, statErr := os.Stat(certFile); statErr == nil {
		return nil, fmt.Errorf("pki: %s is there but %s is not: restore the key from a backup, or remove the data directory to begin a new cluster", certFile, keyFile)
	}
	return makeCA(certFile, keyFile, commonName)
}

func loadCA(certFile, keyFile string) (*CA, error) {
	key, err := readKey(keyFile)
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(certFile)
	if err != nil {
		return nil, fmt.Errorf("pki: %w", err)
	}
	cert, err := parseCert(text)
	if err != nil {
		return nil, fmt.Errorf("pki: %s: %w", certFile, err)
	}
	return &CA{Cert: cert, PEM: text, key: key, now: time.Now}, nil
}

func makeCA(certFile, keyFile, commonName string) (*CA, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("pki: make a key: %w", err)
	}
	serial, err := serialNumber()
	if err != nil {
		return nil, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: commonName},
		NotBefore: now.Add(-backdate), NotAfter: now.Add(CALife),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("pki: make CA %s: %w", commonName, err)
	}
	// The certificate last: loadCA takes a lone key for "not made yet".
	if err := writeKey(keyFile, key); err != nil {
		return nil, err
	}
	if err := writeFile(certFile, pemOf("CERTIFICATE", der)); err != nil {
		return nil, err
	}
	return loadCA(certFile, keyFile)
}

// Leaf describes a certificate to issue.
type Leaf struct {
	CommonName    string
	Organizations []string
	DNSNames      []string
	IPs           []net.IP
	// Life defaults to LeafLife.
	Life           time.Duration
	Client, Server bool
}

// Issue makes a key and a certificate for it, and writes both, readable by the
// owner only.
func (ca *CA) Issue(certFile, keyFile string, leaf Leaf) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("pki: make a key: %w", err)
	}
	text, err := ca.Sign(leaf, key.Public())
	if err != nil {
		return err
	}
	if err := writeKey(keyFile, key); err != nil {
		return err
	}
	return writeFile(certFile, text)
}

// Sign certifies a public key and returns the certificate as PEM. It never
// outlives the CA.
func (ca *CA) Sign(leaf Leaf, public crypto.PublicKey) ([]byte, error) {
	serial, err := serialNumber()
	if err != nil {
		return nil, err
	}
	if leaf.Life == 0 {
		leaf.Life = LeafLife
	}
	now := ca.now()
	if now.After(ca.Cert.NotAfter) {
		return nil, fmt.Errorf("pki: CA %s has expired on %s and signs nothing any more: begin a new cluster", ca.Cert.Subject.CommonName, ca.Cert.NotAfter.Format(time.DateOnly))
	}
	end := now.Add(leaf.Life)
	if end.After(ca.Cert.NotAfter) {
		end = ca.Cert.NotAfter
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: leaf.CommonName, Organization: leaf.Organizations},
		DNSNames:     leaf.DNSNames, IPAddresses: leaf.IPs,
		NotBefore: now.Add(-backdate), NotAfter: end,
		KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true,
	}
	if leaf.Client {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageClientAuth)
	}
	if leaf.Server {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.Cert, public, ca.key)
	if err != nil {
		return nil, fmt.Errorf("pki: sign certificate of %s: %w", leaf.CommonName, err)
	}
	return pemOf("CERTIFICATE", der), nil
}

// Loopback are the addresses by which a host reaches itself.
func Loopback() []net.IP { return []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback} }

func serialNumber() (*big.Int, error) {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("pki: %w", err)
	}
	return n, nil
}

func parseCert(text []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, errors.New("holds no PEM certificate")
	}
	return x509.ParseCertificate(block.Bytes)
}

func pemOf(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func readKey(path string) (crypto.Signer, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("pki: %w", err)
	}
	key, err := keyutil.ParsePrivateKeyPEM(text)
	if err != nil {
		return nil, fmt.Errorf("pki: %s: %w", path, err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("pki: %s holds a %T, which cannot sign", path, key)
	}
	return signer, nil
}

func writeKey(path string, key *ecdsa.PrivateKey) error {
	text, err := keyutil.MarshalPrivateKeyToPEM(key)
	if err != nil {
		return fmt.Errorf("pki: %w", err)
	}
	return writeFile(path, text)
}

// writeFile replaces a file as a whole or not at all. It never was readable by
// others, not even for a moment.
func writeFile(path string, content []byte) error {
	if err := continuity.AtomicWriteFile(path, content, 0o600); err != nil {
		return fmt.Errorf("pki: write %s: %w", path, err)
	}
	return nil
}
