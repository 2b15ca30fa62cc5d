// Package store is where the API server keeps its objects: an etcd server in
// this process, or an etcd cluster of the user's.
//
//	store.go     start or connect, claim the store for a cluster, stop
//	embedded.go  the etcd in this process
//	certs.go     what it proves itself with
//	lock.go      one server a folder
//	peer.go      the port by which the other servers' etcds reach it
//	members.go   which servers hold the store: admit, promote, remove
//	registry.go  what the servers tell about themselves
//	quorum.go    says who is missing when the store cannot work
//
// The embedded server listens on a loopback port and demands a client
// certificate of its own small CA (server/etcd-pki), so that no other user of
// the host can read the cluster's state. The servers of a cluster share that CA.
package store

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"sync"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.uber.org/zap"
	"k8s.io/apiserver/pkg/storage/storagebackend"
)

const (
	// dialLimit is how long an external cluster may take to answer.
	dialLimit = 10 * time.Second

	clusterIDKey = "/lighter/cluster-id"
)

// TLS names the files for mutual TLS with an external etcd.
type TLS struct{ CAFile, CertFile, KeyFile string }

// Config says which etcd to use.
type Config struct {
	// Dir is the embedded server's folder.
	Dir string
	// Endpoints, if any, are the URLs of an external cluster; Dir is not used then.
	Endpoints []string
	TLS       TLS
	// Name is this server's among those that hold the store; "lighter" if empty.
	Name string
	// Peer is where the others reach the embedded server. Nothing listens there
	// until there are others.
	Peer netip.AddrPort
	// Join, at the first start of a further server, are all members, this one
	// included, as Admit returned them on another.
	Join []Member
	// ClusterID is the cluster that the store has to belong to. An empty store
	// is claimed for it.
	ClusterID string
	Log       *slog.Logger
}

// Store is a running, reachable etcd.
type Store struct {
	etcd      *embed.Etcd
	lock      *os.File // nil if external
	client    *clientv3.Client
	transport storagebackend.TransportConfig
	log       *slog.Logger
	name      string

	peer   *peer         // nil if external
	failed chan error    // what ended the embedded server
	others chan struct{} // closed when there may be other servers
	closed chan struct{} // by Close
	// changes of the membership are made one at a time: raft drops the second of two
	// that are under way.
	changes sync.Mutex
}

// Start starts or connects to etcd and waits until it answers. It refuses a
// store that holds another cluster's state.
func Start(ctx context.Context, cfg Config) (*Store, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Name == "" {
		cfg.Name = "lighter"
	}
	s := &Store{log: cfg.Log, name: cfg.Name, closed: make(chan struct{}), others: make(chan struct{}), transport: storagebackend.TransportConfig{
		ServerList: cfg.Endpoints, TrustedCAFile: cfg.TLS.CAFile, CertFile: cfg.TLS.CertFile, KeyFile: cfg.TLS.KeyFile,
	}}
	if len(cfg.Endpoints) == 0 {
		if err := s.startEmbedded(ctx, cfg); err != nil {
			return nil, errors.Join(err, s.Close())
		}
	}
	if s.peer == nil || s.peer.wanted() {
		close(s.others)
	}
	if err := s.connect(ctx, cfg.ClusterID); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// Transport tells the API server how to reach etcd.
func (s *Store) Transport() storagebackend.TransportConfig { return s.transport }

// Client is a connection for what is not an API object.
func (s *Store) Client() *clientv3.Client { return s.client }

// InProcess returns what makes further clients of the embedded server, without a
// connection between them; nil for an external etcd. Whoever makes one closes it.
func (s *Store) InProcess() func() *clientv3.Client {
	if s.etcd == nil {
		return nil
	}
	return func() *clientv3.Client { return v3client.New(s.etcd.Server) }
}

// Failed delivers what stops the embedded server, such as a full disk or its
// removal from the cluster. It never delivers anything for an external one.
func (s *Store) Failed() <-chan error { return s.failed }

// Others is closed when this server is not alone any more; at once if it never
// was, or if nobody can tell, as with an external etcd.
func (s *Store) Others() <-chan struct{} { return s.others }

// Close disconnects, and stops the embedded server: everything is on the disk,
// and its files are closed, when Close returns. Clients that InProcess made have
// to be closed before; etcd would read closed files for them.
func (s *Store) Close() error {
	close(s.closed)
	var err error
	if s.client != nil {
		// A client in process says that its context has ended. So it has.
		if err = s.client.Close(); errors.Is(err, context.Canceled) {
			err = nil
		}
	}
	if s.peer != nil {
		s.peer.close()
	}
	if s.etcd != nil {
		select {
		case <-s.etcd.Server.ReadyNotify():
		default: // it waits for others, and Close would wait with it
			s.etcd.Server.HardStop()
		}
		s.etcd.Close()
	}
	if s.lock != nil {
		s.lock.Close()
	}
	return err
}

func (s *Store) connect(ctx context.Context, clusterID string) error {
	if inProcess := s.InProcess(); inProcess != nil {
		s.client = inProcess()
	} else if err := s.dial(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, dialLimit)
	defer cancel()
	return s.claim(ctx, clusterID)
}

func (s *Store) dial() error {
	tlsConfig, err := s.clientTLS()
	if err != nil {
		return err
	}
	s.client, err = clientv3.New(clientv3.Config{
		Endpoints: s.transport.ServerList, TLS: tlsConfig, DialTimeout: dialLimit, Logger: zap.NewNop(),
	})
	if err != nil {
		return fmt.Errorf("store: connect to etcd at %s: %w", s.transport.ServerList, err)
	}
	return nil
}

func (s *Store) clientTLS() (*tls.Config, error) {
	t := s.transport
	if t.CertFile == "" && t.TrustedCAFile == "" {
		return nil, nil
	}
	info := transport.TLSInfo{CertFile: t.CertFile, KeyFile: t.KeyFile, TrustedCAFile: t.TrustedCAFile}
	config, err := info.ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("store: etcd's TLS files: %w", err)
	}
	return config, nil
}

// claim writes the cluster's ID into an empty store, or checks the one there.
func (s *Store) claim(ctx context.Context, clusterID string) error {
	if clusterID == "" {
		return nil
	}
	reply, err := s.client.Txn(ctx).
		If(clientv3.Compare(clientv3.CreateRevision(clusterIDKey), "=", 0)).
		Then(clientv3.OpPut(clusterIDKey, clusterID)).
		Else(clientv3.OpGet(clusterIDKey)).
		Commit()
	if err != nil {
		return fmt.Errorf("store: etcd at %s does not answer: %w", s.transport.ServerList, err)
	}
	if reply.Succeeded {
		return nil
	}
	if have := string(reply.Responses[0].GetResponseRange().Kvs[0].Value); have != clusterID {
		return fmt.Errorf("store: etcd at %s holds cluster %s, but this server's keys are of cluster %s: give it the data directory of that cluster, or an empty etcd", s.transport.ServerList, have, clusterID)
	}
	return nil
}
