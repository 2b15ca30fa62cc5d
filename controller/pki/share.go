package pki

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Shared is what the servers of a cluster have in common: whoever has it can act
// as the control plane. All certificates of a server follow from it.
type Shared struct{ CACert, CAKey, ServiceAccountKey, Encryption []byte }

func (s *Shared) files() []sharedFile {
	// The CA's certificate last: a folder that has it has all.
	return []sharedFile{
		{"service-account.key", &s.ServiceAccountKey}, {"encryption.yaml", &s.Encryption},
		{"ca.key", &s.CAKey}, {"ca.crt", &s.CACert},
	}
}

type sharedFile struct {
	name    string
	content *[]byte
}

// Shared reads it, for a server that joins.
func (a *Authority) Shared() (Shared, error) {
	var s Shared
	var errs []error
	for _, f := range s.files() {
		text, err := os.ReadFile(a.file(f.name))
		*f.content = text
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return Shared{}, fmt.Errorf("pki: %w", err)
	}
	return s, nil
}

// Adopt makes dir the folder of a server of that cluster, for Open.
func Adopt(dir string, s Shared) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("pki: %w", err)
	}
	for _, f := range s.files() {
		if len(*f.content) == 0 {
			return fmt.Errorf("pki: the server sent no %s", f.name)
		}
		if err := writeFile(filepath.Join(dir, f.name), *f.content); err != nil {
			return err
		}
	}
	return nil
}

// CAHash is the SHA-256 of the CA in dir, in hex, as join tokens have it; "" if
// there is none.
func CAHash(dir string) (string, error) {
	text, err := os.ReadFile(filepath.Join(dir, "ca.crt"))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("pki: %w", err)
	}
	cert, err := parseCert(text)
	if err != nil {
		return "", fmt.Errorf("pki: %s: %w", filepath.Join(dir, "ca.crt"), err)
	}
	sum := sha256.Sum256(cert.Raw)
	return hex.EncodeToString(sum[:]), nil
}
