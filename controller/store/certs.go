package store

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"lighter.dev/lighter/controller/pki"
)

// certFiles are what etcd and its client prove themselves with: one pair for
// both, as they are one process.
type certFiles struct{ ca, cert, key string }

// ensureCerts makes the embedded etcd's own CA and pair, once. They never leave
// this folder, so their life may be as long as the CA's.
func ensureCerts(dir string) (certFiles, error) {
	files := certFiles{filepath.Join(dir, "ca.crt"), filepath.Join(dir, "etcd.crt"), filepath.Join(dir, "etcd.key")}
	ca, err := pki.OpenCA(dir, "lighter-etcd-ca")
	if err != nil {
		return files, err
	}
	if _, err := os.Stat(files.cert); !errors.Is(err, fs.ErrNotExist) {
		return files, err
	}
	return files, ca.Issue(files.cert, files.key, pki.Leaf{
		CommonName: "lighter-etcd", DNSNames: []string{"localhost"}, IPs: pki.Loopback(), Life: pki.CALife, Client: true, Server: true,
	})
}
