package identity

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"lighter.dev/lighter/api/jointoken"
)

const (
	caFile     = "ca.crt"
	recordFile = "node.json"
)

// record is who this folder belongs to.
type record struct {
	NodeName string `json:"nodeName"`
	CAHash   string `json:"caHash"`
}

// recognise reads the folder and refuses one of another node or another cluster.
// An empty one is fine.
func (i *Identity) recognise() error {
	text, err := os.ReadFile(filepath.Join(i.cfg.Dir, recordFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("identity: %w", err)
	}
	var have record
	if err := json.Unmarshal(text, &have); err != nil {
		return fmt.Errorf("identity: %s is damaged (%w): remove %s and join again with a token", recordFile, err, i.cfg.Dir)
	}
	if have.NodeName != i.cfg.NodeName {
		return fmt.Errorf("identity: %s belongs to node %s, not to %s: start the agent with --node-name %s, or give it another --data-dir", i.cfg.Dir, have.NodeName, i.cfg.NodeName, have.NodeName)
	}
	if err := i.sameCluster(have); err != nil {
		return err
	}
	i.caPEM, err = os.ReadFile(filepath.Join(i.cfg.Dir, caFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("identity: %w", err)
	}
	return nil
}

// sameCluster holds a token against the cluster that the host has joined.
func (i *Identity) sameCluster(have record) error {
	if i.cfg.Token == "" {
		return nil
	}
	token, err := jointoken.Parse(i.cfg.Token)
	if err != nil {
		return fmt.Errorf("identity: token: %w", err)
	}
	if token.CAHash != have.CAHash {
		return fmt.Errorf("identity: %s holds the data of another cluster (its CA has hash %s, the token is for %s): give the agent a token of its own cluster, or an empty --data-dir", i.cfg.Dir, have.CAHash, token.CAHash)
	}
	return nil
}

// remember writes down which cluster this is, before anything of it is kept.
func (i *Identity) remember(caHash string) error {
	text, err := json.Marshal(record{NodeName: i.cfg.NodeName, CAHash: caHash})
	if err != nil {
		return err
	}
	// The CA first: a record without it would be a promise that nothing keeps.
	if err := replaceFile(filepath.Join(i.cfg.Dir, caFile), i.caPEM); err != nil {
		return err
	}
	return replaceFile(filepath.Join(i.cfg.Dir, recordFile), text)
}

// replaceFile writes a file that is whole at any moment.
func replaceFile(path string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return fmt.Errorf("identity: %w", err)
	}
	_, err = f.Write(content)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("identity: write %s: %w", path, errors.Join(err, os.Remove(f.Name())))
	}
	return nil
}
