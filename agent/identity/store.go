package identity

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"k8s.io/client-go/util/certificate"
)

// store is a certificate with its key: in one file, replaced as a whole, and in
// memory for handshakes. client-go's FileStore would keep every pair there has
// ever been, and for a moment of each renewal have none.
type store struct {
	name, path string
	log        *slog.Logger
	// present is closed once there is a certificate that is valid; it is set before
	// others see the store.
	present chan struct{}

	writing sync.Mutex // held while the file is replaced
	sealed  bool       // the file stays as it is; guarded by writing

	mu     sync.Mutex
	cert   *tls.Certificate
	damage error // why the file that is there has no certificate to offer
	closed bool
}

// openStore reads dir/<name>.pem, which need not be there yet.
func openStore(dir, name string, log *slog.Logger) (*store, error) {
	s := &store{name: name, path: filepath.Join(dir, name+".pem"), log: log, present: make(chan struct{})}
	text, err := os.ReadFile(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	cert, err := tls.X509KeyPair(text, text)
	if err != nil {
		s.damage = fmt.Errorf("%s is damaged: %w", s.path, err)
		return s, nil
	}
	s.keep(&cert)
	return s, nil
}

// Current implements certificate.Store: the newest certificate, expired or not.
func (s *store) Current() (*tls.Certificate, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cert != nil {
		return s.cert, nil
	}
	// Any other kind of error would keep the manager from asking for a new one.
	missing := certificate.NoCertKeyError("there is no " + s.name + " certificate yet")
	if s.damage != nil {
		missing = certificate.NoCertKeyError(s.damage.Error())
	}
	return nil, &missing
}

// Update implements certificate.Store.
func (s *store) Update(certPEM, keyPEM []byte) (*tls.Certificate, error) {
	cert, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, fmt.Errorf("the server's %s certificate: %w", s.name, err)
	}
	s.writing.Lock()
	defer s.writing.Unlock()
	if s.sealed {
		return nil, errors.New("the agent is ending")
	}
	if err := replaceFile(s.path, append(append([]byte{}, certPEM...), keyPEM...)); err != nil {
		return nil, err
	}
	s.keep(&cert)
	s.log.Info("new certificate", "for", s.name, "until", cert.Leaf.NotAfter)
	return &cert, nil
}

// seal ends, or allows again, that the file is replaced. A write that is under way it
// waits for.
func (s *store) seal(sealed bool) {
	s.writing.Lock()
	defer s.writing.Unlock()
	s.sealed = sealed
}

func (s *store) keep(cert *tls.Certificate) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cert, s.damage = cert, nil
	if !s.closed && time.Now().Before(cert.Leaf.NotAfter) {
		s.closed = true
		close(s.present)
	}
}

// forget removes the certificate, as if there had never been one.
func (s *store) forget() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := os.Remove(s.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("identity: %w", err)
	}
	s.cert, s.damage = nil, nil
	s.present, s.closed = make(chan struct{}), false
	return nil
}

// empty: nothing was ever kept here.
func (s *store) empty() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cert == nil && s.damage == nil
}

// unusable says why the certificate cannot be used as commonName with this CA,
// which may be nil, or "". Whether it is valid already is not asked: the clock of a host that
// has just started may be years behind.
func (s *store) unusable(commonName string, ca *x509.Certificate, now time.Time) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.damage != nil:
		return s.damage.Error()
	case s.cert == nil:
		return "this host has not joined the cluster yet"
	case ca == nil:
		return "the cluster's CA certificate is missing or damaged"
	case s.cert.Leaf.CheckSignatureFrom(ca) != nil:
		return "the " + s.name + " certificate is not one of the cluster's CA"
	case s.cert.Leaf.Subject.CommonName != commonName:
		return "the " + s.name + " certificate is for " + s.cert.Leaf.Subject.CommonName
	case now.After(s.cert.Leaf.NotAfter):
		return fmt.Sprintf("the %s certificate has expired on %s", s.name, s.cert.Leaf.NotAfter.Format(time.DateOnly))
	}
	return ""
}
