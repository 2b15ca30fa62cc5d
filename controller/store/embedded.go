package store

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/membership"
	"go.etcd.io/etcd/server/v3/storage/wal"
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
	// catchUpPeers: a server that was away for less gets what it missed, one that
	// was away for longer the whole database.
	catchUpPeers = 1000
	// maxServers bounds those that join at a time.
	maxServers = 8
	// startLimit is how long the embedded server may take, with a large log to
	// replay. For others it waits as long as they take.
	startLimit = time.Minute
	// tellEvery is the pause between two lines about servers that are missing.
	tellEvery = 10 * time.Second
)

var (
	// ErrMembersChanged: others joined or left since Config.Join was made. Ask again.
	ErrMembersChanged = errors.New("the servers of the cluster have changed meanwhile")
	// errDataLost: a second store for the same cluster would split it in two.
	errDataLost = errors.New("this server was one of several, but its part of the store is missing: take it out on another one ('lighter server remove NAME') and start it with --join and --token")
	errRemoved  = errors.New("etcd has stopped: this server is no member of the cluster any more ('lighter server remove' was run): to let it join again, remove its data directory and start it with --join and --token")
)

// Joined tells whether the embedded store in dir has begun its life.
func Joined(dir string) bool { return wal.Exist(filepath.Join(dir, "data", "member", "wal")) }

func (s *Store) startEmbedded(ctx context.Context, cfg Config) error {
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	var err error
	if s.lock, err = lock(cfg.Dir); err != nil {
		return err
	}
	files, err := ensureCerts(pkiDir(cfg.Dir))
	if err != nil {
		return fmt.Errorf("store: certificates: %w", err)
	}
	s.peer = &peer{addr: cfg.Peer, marker: filepath.Join(pkiDir(cfg.Dir), peerMarker), tls: files.peerTLS()}
	if s.peer.wanted() && !Joined(cfg.Dir) && len(cfg.Join) == 0 {
		return fmt.Errorf("store: %s: %w", cfg.Dir, errDataLost)
	}
	endpoint, err := s.listen(cfg, files)
	if err != nil {
		return explain(err, cfg.Dir)
	}
	// Before it is ready: others may be needed for that, and need us.
	if s.peer.wanted() {
		if err := s.peer.open(s.etcd.Server); err != nil {
			return err
		}
	}
	if err := s.awaitReady(ctx, cfg.Dir); err != nil {
		return err
	}
	s.transport = storagebackend.TransportConfig{
		ServerList: []string{endpoint.String()}, TrustedCAFile: files.ca, CertFile: files.cert, KeyFile: files.key,
	}
	s.failed = make(chan error, 1)
	go s.watch()
	return nil
}

// listen starts the embedded server at a port of loopback. Another process may take
// it before etcd does; then the next one will do.
func (s *Store) listen(cfg Config, files certFiles) (endpoint url.URL, err error) {
	for range 5 {
		if endpoint, err = freeLoopback(); err != nil {
			return endpoint, err
		}
		s.etcd, err = embed.StartEtcd(embeddedConfig(cfg, files, endpoint, s.peer.wanted()))
		if !errors.Is(err, syscall.EADDRINUSE) {
			break
		}
	}
	return endpoint, err
}

// awaitReady returns when the embedded server can read and write.
func (s *Store) awaitReady(ctx context.Context, dir string) error {
	limit, tell := time.After(startLimit), time.NewTicker(tellEvery)
	defer tell.Stop()
	if s.peer.wanted() {
		limit = nil
	}
	for {
		select {
		case <-s.etcd.Server.ReadyNotify():
			return nil
		case err := <-s.etcd.Err():
			select {
			case <-s.etcd.Server.StoppingNotify():
				return fmt.Errorf("store: %w", errRemoved)
			default:
				return explain(err, dir)
			}
		case <-s.etcd.Server.StopNotify():
			return fmt.Errorf("store: %w", errRemoved)
		case <-ctx.Done():
			return ctx.Err()
		case <-limit:
			return fmt.Errorf("store: etcd in %s is not ready after %s", dir, startLimit)
		case <-tell.C:
			if s.peer.wanted() {
				s.log.Warn("etcd waits for the other servers", "why", s.Quorum(ctx))
			}
		}
	}
}

func embeddedConfig(cfg Config, files certFiles, endpoint url.URL, others bool) *embed.Config {
	c := embed.NewConfig()
	c.Name = cfg.Name
	c.Dir = filepath.Join(cfg.Dir, "data")
	c.ListenClientUrls, c.AdvertiseClientUrls = []url.URL{endpoint}, []url.URL{endpoint}
	// etcd insists on a port for peers from the start. The real one is opened when
	// there are any, see peer.
	local := url.URL{Scheme: "https", Host: "127.0.0.1:0"}
	c.ListenPeerUrls, c.AdvertisePeerUrls = []url.URL{local}, []url.URL{local}
	c.InitialCluster = c.InitialClusterFromName(c.Name)
	c.PeerTLSInfo = files.peerTLS()
	c.ClientTLSInfo = transport.TLSInfo{
		CertFile: files.cert, KeyFile: files.key, TrustedCAFile: files.ca, ClientCertAuth: true,
	}
	c.EnableGRPCGateway = false // nobody speaks JSON to it
	// What the log holds since its last snapshot is also held in memory. Only
	// other members could want more of it.
	c.SnapshotCount, c.SnapshotCatchUpEntries = snapshotEvery, catchUp
	c.QuotaBackendBytes = quotaBytes
	c.AutoCompactionMode, c.AutoCompactionRetention = embed.CompactorModePeriodic, "10m"
	// With one member there is nobody to wait for: elections only cost start-up time.
	c.TickMs, c.ElectionMs = 50, 500
	c.MaxLearners = maxServers
	if others {
		c.SnapshotCatchUpEntries = catchUpPeers
		c.TickMs, c.ElectionMs = 100, 1000 // etcd's own
	}
	if len(cfg.Join) > 0 {
		c.ClusterState, c.InitialCluster = embed.ClusterStateFlagExisting, initialCluster(cfg.Join)
		c.AdvertisePeerUrls = []url.URL{{Scheme: "https", Host: cfg.Peer.String()}}
	}
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	return c
}

// initialCluster lists members in etcd's form.
func initialCluster(members []Member) string {
	var all []string
	for _, m := range members {
		all = append(all, m.Name+"="+m.PeerURL)
	}
	return strings.Join(all, ",")
}

// explain turns an error that users meet into advice.
func explain(err error, dir string) error {
	text := err.Error()
	switch {
	case strings.Contains(text, "no space left"):
		return fmt.Errorf("store: the disk of %s is full: free some space and start again: %w", dir, err)
	case strings.Contains(text, "member count is unequal"), strings.Contains(text, "no match found for existing member"),
		errors.Is(err, membership.ErrTooManyLearners):
		return fmt.Errorf("store: %w: %w", ErrMembersChanged, err)
	case strings.Contains(text, "cannot fetch cluster info from peer"):
		return fmt.Errorf("store: the other servers' etcd cannot be reached: let servers reach one another's --etcd-peer-port (2380 unless changed): %w", err)
	}
	return fmt.Errorf("store: start etcd in %s: %w", dir, err)
}

// freeLoopback picks a port.
func freeLoopback() (url.URL, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // loopback does not wait
	if err != nil {
		return url.URL{}, fmt.Errorf("find a free port: %w", err)
	}
	defer l.Close()
	return url.URL{Scheme: "https", Host: l.Addr().String()}, nil
}
