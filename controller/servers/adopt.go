package servers

import (
	"errors"
	"fmt"

	"lighter.dev/lighter/api/jointoken"
	"lighter.dev/lighter/controller/pki"
	"lighter.dev/lighter/controller/store"
)

// Folders are where a server keeps its keys and its part of the store.
type Folders struct {
	PKI string
	// Store is "" with an external etcd.
	Store string
}

// Joined tells whether the folders are a server's of the cluster that token is
// for (token may be ""). They are not if a join was interrupted; another
// cluster's are an error.
func (f Folders) Joined(token string) (bool, error) {
	hash, err := pki.CAHash(f.PKI)
	if err != nil {
		return false, err
	}
	begun := f.Store != "" && store.Joined(f.Store)
	if token != "" {
		parsed, err := jointoken.Parse(token)
		if err != nil {
			return false, err
		}
		if hash != "" && hash != parsed.CAHash {
			return false, fmt.Errorf("%s holds the keys of another cluster (its CA has hash %s, the token is for %s): give this server a token of its own cluster, or an empty --data-dir", f.PKI, hash, parsed.CAHash)
		}
	}
	switch {
	case hash == "" && begun:
		return false, fmt.Errorf("%s holds a cluster's data, but %s not its keys: restore them, or remove both to join a cluster", f.Store, f.PKI)
	case hash == "":
		return false, nil
	case f.Store == "":
		return true, nil
	}
	return begun, nil
}

// Adopt writes what another server sent. Until the store begins its life, a
// crash only means to join again.
func (f Folders) Adopt(reply *Reply, peerURL string) error {
	if f.Store != "" {
		if len(reply.Members) == 0 || len(reply.Store.CAKey) == 0 {
			return errors.New("the server sent no members of etcd")
		}
		if err := store.Adopt(f.Store, reply.Store, peerURL); err != nil {
			return err
		}
	}
	return pki.Adopt(f.PKI, reply.Identity)
}
