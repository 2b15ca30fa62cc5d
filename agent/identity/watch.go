package identity

import (
	"crypto/tls"
	"fmt"
	"sync"
	"time"

	"k8s.io/client-go/util/certificate"
)

// watchedStore is a certificate with its key on disk, and the copy in memory
// that handshakes use.
type watchedStore struct {
	certificate.FileStore
	// present is closed once there is a certificate that is valid.
	present chan struct{}

	mu     sync.Mutex
	cert   *tls.Certificate
	closed bool
}

// openStore opens dir/<name>-current.pem, which need not be there yet.
func openStore(dir, name string) (*watchedStore, error) {
	files, err := certificate.NewFileStore(name, dir, dir, "", "")
	if err != nil {
		return nil, fmt.Errorf("identity: %s certificate: %w", name, err)
	}
	s := &watchedStore{FileStore: files, present: make(chan struct{})}
	if cert, err := files.Current(); err == nil {
		s.keep(cert)
	}
	return s, nil
}

// Current implements certificate.Store.
func (s *watchedStore) Current() (*tls.Certificate, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cert != nil {
		return s.cert, nil
	}
	return s.FileStore.Current()
}

// Update implements certificate.Store.
func (s *watchedStore) Update(cert, key []byte) (*tls.Certificate, error) {
	updated, err := s.FileStore.Update(cert, key)
	if err == nil {
		s.keep(updated)
	}
	return updated, err
}

func (s *watchedStore) keep(cert *tls.Certificate) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cert = cert
	if !s.closed && time.Now().Before(cert.Leaf.NotAfter) {
		s.closed = true
		close(s.present)
	}
}
