package store

import (
	"context"
	"encoding/json"
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// serversPrefix holds one key for each server, under its name.
const serversPrefix = "/lighter/servers/"

// Server is what a server tells the others about itself.
type Server struct {
	Name string `json:"name"`
	// Address is host:port of its API.
	Address string `json:"address"`
	// PeerURL is where its etcd is, or will be; "" with an external one.
	PeerURL string `json:"peerURL,omitempty"`
}

// Register writes down what a server says, if that is new.
func (s *Store) Register(ctx context.Context, server Server) error {
	text, err := json.Marshal(server)
	if err != nil {
		return err
	}
	key := serversPrefix + server.Name
	_, err = s.client.Txn(ctx).
		If(clientv3.Compare(clientv3.Value(key), "=", string(text))).
		Else(clientv3.OpPut(key, string(text))).
		Commit()
	if err != nil {
		return fmt.Errorf("store: register server %s: %w", server.Name, err)
	}
	return nil
}

// Servers are all that have registered and were not removed, by name. It answers
// without a quorum too, with what this server knows.
func (s *Store) Servers(ctx context.Context) (map[string]Server, error) {
	reply, err := s.client.Get(ctx, serversPrefix, clientv3.WithPrefix(), clientv3.WithSerializable())
	if err != nil {
		return nil, fmt.Errorf("store: list servers: %w", err)
	}
	all := map[string]Server{}
	for _, kv := range reply.Kvs {
		var server Server
		if err := json.Unmarshal(kv.Value, &server); err != nil {
			return nil, fmt.Errorf("store: key %s: %w", kv.Key, err)
		}
		all[server.Name] = server
	}
	return all, nil
}

// Me is this server, whose API is at address (host:port).
func (s *Store) Me(address string) Server {
	me := Server{Name: s.name, Address: address}
	if s.peer != nil && s.peer.addr.IsValid() {
		me.PeerURL = s.peer.url()
	}
	return me
}

// Introduce tells the others where this server is now.
func (s *Store) Introduce(ctx context.Context, address string) error {
	if s.peer != nil && s.peer.wanted() {
		if err := s.announce(ctx); err != nil {
			return err
		}
	}
	return s.Register(ctx, s.Me(address))
}

// External tells whether etcd is the user's.
func (s *Store) External() bool { return s.etcd == nil }
