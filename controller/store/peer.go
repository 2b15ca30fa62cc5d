package store

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/containerd/continuity"
	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.etcd.io/etcd/server/v3/etcdserver"
	"go.etcd.io/etcd/server/v3/etcdserver/api/etcdhttp"
	"go.etcd.io/etcd/server/v3/etcdserver/api/rafthttp"
	"go.uber.org/zap"
)

// peerMarker is a file that is there once a store has had other members.
const peerMarker = "peer-url"

// peer is the port by which other servers' etcds reach this one, over TLS with
// certificates of etcd's own CA on both sides. etcd would open it at its start
// and never again; a server that is alone does without, and opens it when the
// first other one comes.
type peer struct {
	addr   netip.AddrPort
	marker string
	tls    transport.TLSInfo

	mu     sync.Mutex
	server *http.Server
}

// url is what others call this member.
func (p *peer) url() string { return "https://" + p.addr.String() }

// wanted tells whether there are others, or were.
func (p *peer) wanted() bool {
	_, err := os.Stat(p.marker)
	return !errors.Is(err, fs.ErrNotExist)
}

// want remembers that there are others from now on.
func (p *peer) want() error {
	return continuity.AtomicWriteFile(p.marker, []byte(p.url()+"\n"), 0o600)
}

// open serves others. It may be repeated.
func (p *peer) open(etcd *etcdserver.EtcdServer) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.server != nil {
		return nil
	}
	if !p.addr.IsValid() {
		return errors.New("store: this server has no address for other servers: set --node-ip")
	}
	listener, err := transport.NewListenerWithOpts(p.addr.String(), "https", transport.WithTLSInfo(&p.tls),
		transport.WithTimeout(rafthttp.ConnReadTimeout, rafthttp.ConnWriteTimeout))
	if err != nil {
		return fmt.Errorf("store: the port for other servers: %w: end what uses it, or set another --etcd-peer-port", err)
	}
	p.server = &http.Server{
		Handler:     etcdhttp.NewPeerHandler(zap.NewNop(), etcd),
		ReadTimeout: 5 * time.Minute, // as etcd has it: it is the time of a snapshot
		ErrorLog:    slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug),
	}
	// It ends with ErrServerClosed, in close.
	go func(server *http.Server) { _ = server.Serve(listener) }(p.server)
	return nil
}

// close ends connections at once; raft copes.
func (p *peer) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.server != nil {
		_ = p.server.Close() // of what is being closed
	}
}
