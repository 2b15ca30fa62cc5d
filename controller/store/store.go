// Package store is where the API server keeps its objects: an etcd server in
// this process, or an etcd cluster of the user's.
//
// The embedded server listens on a loopback port and demands a client
// certificate of its own small CA (server/etcd-pki), so that no other user of
// the host can read the cluster's state.
package store

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.uber.org/zap"
	"k8s.io/apiserver/pkg/storage/storagebackend"
)

const (
	// quotaBytes bounds the database; etcd's own default of 2 GiB is small for
	// clusters with many events.
	quotaBytes = 4 << 30
	// snapshotEvery and catchUp are numbers of writes.
	snapshotEvery = 2000
	catchUp       = 100
	// startLimit is how long the embedded server may take, with a large log to replay.
	startLimit = time.Minute
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
}

// Start starts or connects to etcd and waits until it answers. It refuses a
// store that holds another cluster's state.
func Start(ctx context.Context, cfg Config) (*Store, error) {
	s := &Store{transport: storagebackend.TransportConfig{
		ServerList: cfg.Endpoints, TrustedCAFile: cfg.TLS.CAFile, CertFile: cfg.TLS.CertFile, KeyFile: cfg.TLS.KeyFile,
	}}
	if len(cfg.Endpoints) == 0 {
		if err := s.startEmbedded(ctx, cfg); err != nil {
			return nil, errors.Join(err, s.Close())
		}
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

// Failed delivers what stops the embedded server, such as a full disk. It
// never delivers anything for an external one.
func (s *Store) Failed() <-chan error {
	if s.etcd == nil {
		return nil
	}
	return s.etcd.Err()
}

// Close disconnects, and stops the embedded server: everything is on the disk,
// and its files are closed, when Close returns. Clients that InProcess made have
// to be closed before; etcd would read closed files for them.
func (s *Store) Close() error {
	var err error
	if s.client != nil {
		// A client in process says that its context has ended. So it has.
		if err = s.client.Close(); errors.Is(err, context.Canceled) {
			err = nil
		}
	}
	if s.etcd != nil {
		s.etcd.Close()
	}
	if s.lock != nil {
		s.lock.Close()
	}
	return err
}

func (s *Store) startEmbedded(ctx context.Context, cfg Config) error {
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	var err error
	if s.lock, err = lock(cfg.Dir); err != nil {
		return err
	}
	files, err := ensureCerts(cfg.Dir + "-pki")
	if err != nil {
		return fmt.Errorf("store: certificates: %w", err)
	}
	endpoint, err := freeLoopback()
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	if s.etcd, err = embed.StartEtcd(embeddedConfig(cfg, files, endpoint)); err != nil {
		return explain(err, cfg.Dir)
	}
	select {
	case <-s.etcd.Server.ReadyNotify():
	case err := <-s.etcd.Err():
		return explain(err, cfg.Dir)
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(startLimit):
		return fmt.Errorf("store: etcd in %s is not ready after %s", cfg.Dir, startLimit)
	}
	s.transport = storagebackend.TransportConfig{
		ServerList: []string{endpoint.String()}, TrustedCAFile: files.ca, CertFile: files.cert, KeyFile: files.key,
	}
	return nil
}

func embeddedConfig(cfg Config, files certFiles, endpoint url.URL) *embed.Config {
	c := embed.NewConfig()
	c.Name = "lighter"
	c.Dir = filepath.Join(cfg.Dir, "data")
	c.ListenClientUrls, c.AdvertiseClientUrls = []url.URL{endpoint}, []url.URL{endpoint}
	// A single member has no peers: etcd insists on an address, nobody needs it.
	peer := url.URL{Scheme: "http", Host: "127.0.0.1:0"}
	c.ListenPeerUrls, c.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	c.InitialCluster = c.InitialClusterFromName(c.Name)
	c.ClientTLSInfo = transport.TLSInfo{
		CertFile: files.cert, KeyFile: files.key, TrustedCAFile: files.ca, ClientCertAuth: true,
	}
	c.EnableGRPCGateway = false // nobody speaks JSON to it
	// What the log holds since its last snapshot is also held in memory. Only
	// other members could want more of it, and there are none.
	c.SnapshotCount, c.SnapshotCatchUpEntries = snapshotEvery, catchUp
	c.QuotaBackendBytes = quotaBytes
	c.AutoCompactionMode, c.AutoCompactionRetention = embed.CompactorModePeriodic, "10m"
	// With one member there is nobody to wait for: elections only cost start-up time.
	c.TickMs, c.ElectionMs = 50, 500
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	return c
}

// explain turns an error that users meet into advice.
func explain(err error, dir string) error {
	if strings.Contains(err.Error(), "no space left") {
		return fmt.Errorf("store: the disk of %s is full: free some space and start again: %w", dir, err)
	}
	return fmt.Errorf("store: start etcd in %s: %w", dir, err)
}

// freeLoopback picks a port. Another process could take it before etcd does;
// the start fails then, and is repeated by whoever supervises us.
func freeLoopback() (url.URL, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // loopback does not wait
	if err != nil {
		return url.URL{}, fmt.Errorf("find a free port: %w", err)
	}
	defer l.Close()
	return url.URL{Scheme: "https", Host: l.Addr().String()}, nil
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
