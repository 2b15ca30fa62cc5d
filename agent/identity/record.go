package identity

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"lighter.dev/lighter/api/jointoken"
)

const (
	caFile     = "ca.crt"
	recordFile = "node.json"
)

// record is who this folder belongs to. It binds once there is a certificate: a
// host whose join was refused may come back with another name or token.
type record struct {
	NodeName string `json:"nodeName"`
	CAHash   string `json:"caHash"`
	// Servers are those that the cluster had when this host last heard of them.
	Servers []string `json:"servers,omitempty"`
}

// recognise reads the folder and refuses one of another node or another cluster.
// One without a client certificate is as good as empty.
func (i *Identity) recognise() error {
	if i.client.empty() {
		return nil
	}
	text, err := os.ReadFile(filepath.Join(i.cfg.Dir, recordFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("identity: %w", err)
	}
	if err := json.Unmarshal(text, &i.have); err != nil {
		return fmt.Errorf("identity: %s is damaged (%w): remove %s and join again with a token", recordFile, err, i.cfg.Dir)
	}
	if i.have.NodeName != i.cfg.NodeName {
		return fmt.Errorf("identity: %s belongs to node %s, not to %s: start the agent with --node-name %s, or give it another --data-dir", i.cfg.Dir, i.have.NodeName, i.cfg.NodeName, i.have.NodeName)
	}
	if i.cfg.Token != "" {
		if _, err := i.parse(i.cfg.Token); err != nil {
			return err
		}
	}
	return i.readCA()
}

// readCA finds the CA that the record names. A join gets it anew if that fails.
func (i *Identity) readCA() error {
	text, err := os.ReadFile(filepath.Join(i.cfg.Dir, caFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("identity: %w", err)
	}
	if hash, err := jointoken.Hash(text); err == nil && hash == i.have.CAHash {
		return i.trust(text)
	}
	return nil
}

// trust makes the first certificate of bundle the CA. No other one in it may be
// trusted: the hash in a token speaks for the first alone.
func (i *Identity) trust(bundle []byte) error {
	block, _ := pem.Decode(bundle)
	if block == nil {
		return errors.New("no PEM certificate found")
	}
	ca, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return fmt.Errorf("parse CA certificate: %w", err)
	}
	i.ca, i.pool = ca, x509.NewCertPool()
	i.pool.AddCert(ca)
	i.caPEM = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Raw})
	return nil
}

// parse reads a token and holds it against the cluster that the host has joined.
func (i *Identity) parse(text string) (jointoken.Token, error) {
	token, err := jointoken.Parse(text)
	if err != nil {
		return token, fmt.Errorf("identity: %w", err)
	}
	if i.have.CAHash != "" && token.CAHash != i.have.CAHash {
		return token, fmt.Errorf("identity: %s holds the data of another cluster (its CA has hash %s, the token is for %s): give the agent a token of its own cluster, or an empty --data-dir", i.cfg.Dir, i.have.CAHash, token.CAHash)
	}
	return token, nil
}

// remember writes down which cluster this is, before anything of it is kept.
func (i *Identity) remember(caHash string) error {
	// The CA first: a record without it would be a promise that nothing keeps.
	if err := replaceFile(filepath.Join(i.cfg.Dir, caFile), i.caPEM); err != nil {
		return fmt.Errorf("identity: %w", err)
	}
	return i.write(record{NodeName: i.cfg.NodeName, CAHash: caHash})
}

// Servers are the addresses (host:port) of the cluster's servers, as far as this
// host has been told.
func (i *Identity) Servers() []string { return i.have.Servers }

// RememberServers keeps the addresses for the next start. Call it from one
// goroutine only.
func (i *Identity) RememberServers(servers []string) error {
	if slices.Equal(servers, i.have.Servers) {
		return nil
	}
	next := i.have
	next.Servers = servers
	return i.write(next)
}

func (i *Identity) write(r record) error {
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if err := replaceFile(filepath.Join(i.cfg.Dir, recordFile), text); err != nil {
		return fmt.Errorf("identity: %w", err)
	}
	i.have = r
	return nil
}

// replaceFile writes a file, for the owner's eyes only, that is whole at any
// moment. What an interrupted write leaves behind, the next one takes over.
func replaceFile(path string, content []byte) error {
	next := path + ".new"
	f, err := os.OpenFile(next, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(next, path)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, errors.Join(err, os.Remove(next)))
	}
	return nil
}
