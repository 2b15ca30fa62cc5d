package vxlan

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/continuity"
)

const peersFile = "peers.json"

func loadPeers(dir string) ([]Peer, error) {
	content, err := os.ReadFile(filepath.Join(dir, peersFile)) //nolint:gosec // our own folder
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read peers: %w", err)
	}
	var peers []Peer
	if err := json.Unmarshal(content, &peers); err != nil {
		return nil, fmt.Errorf("read peers: %s: %w", peersFile, err)
	}
	return peers, nil
}

// storePeers replaces the file whole and syncs it: it is what brings the routes
// back after a power loss when the control plane is not there.
func storePeers(dir string, peers []Peer) error {
	content, err := json.MarshalIndent(peers, "", "  ")
	if err != nil {
		return fmt.Errorf("keep peers: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("keep peers: %w", err)
	}
	path := filepath.Join(dir, peersFile)
	if err := continuity.AtomicWriteFile(path, append(content, '\n'), 0o600); err != nil {
		return fmt.Errorf("keep peers: %w", err)
	}
	return nil
}

func dropPeers(dir string) error {
	err := os.Remove(filepath.Join(dir, peersFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}
