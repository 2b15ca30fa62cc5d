package build

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/defaults"
	controlapi "github.com/moby/buildkit/api/services/control"
	gateway "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/util/grpcerrors"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"lighter.dev/lighter/agent/hostapi"
)

// Protocol is the Upgrade header's value: BuildKit's gRPC over the connection.
const Protocol = "lighter-build"

// The keepalives end a build whose client vanished without a word (power loss),
// and allow the client to find out the same about this host.
var (
	serverKeepalive = keepalive.ServerParameters{Time: 15 * time.Second, Timeout: 15 * time.Second}
	clientKeepalive = keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}
)

// Handler serves POST /build/{namespace}/{name} with the headers "Connection:
// Upgrade" and "Upgrade: lighter-build". It answers 101 and then speaks
// BuildKit's control API on the connection; errors before that are
// metav1.Status documents. It trusts its caller: who may build is decided
// where it is mounted.
func (b *Builder) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/build/{namespace}/{name}", b.serveBuild)
	return mux
}

func (b *Builder) serveBuild(w http.ResponseWriter, r *http.Request) {
	namespace, name := r.PathValue("namespace"), r.PathValue("name")
	if !strings.EqualFold(r.Header.Get("Upgrade"), Protocol) {
		hostapi.WriteError(w, apierrors.NewBadRequest("want the headers Connection: Upgrade and Upgrade: "+Protocol+" (lighter apply and lighter build send them)"))
		return
	}
	if _, err := b.cfg.Images.Get(r.Context(), namespace, name); err != nil {
		hostapi.WriteError(w, err)
		return
	}
	e, leave, err := b.enter()
	if err != nil {
		hostapi.WriteError(w, apierrors.NewServiceUnavailable(err.Error()))
		return
	}
	defer leave()
	conn, err := hijack(w)
	if err != nil {
		hostapi.WriteError(w, apierrors.NewInternalError(err))
		return
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.Context()))
	defer cancel()
	defer context.AfterFunc(b.run, cancel)()
	b.serveConn(ctx, conn, &buildServer{builder: b, engine: e, namespace: namespace, name: name})
}

// hijack takes the connection over from the HTTP server and answers 101.
func hijack(w http.ResponseWriter) (*bufferedConn, error) {
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, fmt.Errorf("upgrade connection (HTTP/1.1 is needed): %w", err)
	}
	_, err = fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", Protocol)
	if err == nil {
		err = conn.SetDeadline(time.Time{})
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return &bufferedConn{Conn: conn, buffered: buffered.Reader, closed: make(chan struct{})}, nil
}

// serveConn speaks gRPC until the client hangs up or ctx ends, and returns when
// the build on it has cleaned up after itself.
func (b *Builder) serveConn(ctx context.Context, conn *bufferedConn, c *buildServer) {
	server := grpc.NewServer(
		grpc.UnaryInterceptor(grpcerrors.UnaryServerInterceptor),
		grpc.StreamInterceptor(grpcerrors.StreamServerInterceptor),
		grpc.MaxRecvMsgSize(defaults.DefaultMaxRecvMsgSize),
		grpc.MaxSendMsgSize(defaults.DefaultMaxSendMsgSize),
		grpc.KeepaliveParams(serverKeepalive),
		grpc.KeepaliveEnforcementPolicy(clientKeepalive),
		grpc.WaitForHandlers(true),
	)
	controlapi.RegisterControlServer(server, c)
	gateway.RegisterLLBBridgeServer(server, &bridgeServer{buildServer: c})
	l := newSingleListener(conn)
	served := make(chan struct{})
	go func() {
		defer close(served)
		// The error says that the listener was closed, which is how it ends.
		_ = server.Serve(l)
	}()
	select {
	case <-conn.closed:
	case <-ctx.Done():
	}
	server.Stop()
	<-served
}

// bufferedConn first gives out what the HTTP server had read already.
type bufferedConn struct {
	net.Conn
	buffered interface {
		Read([]byte) (int, error)
		Buffered() int
	}
	once   sync.Once
	closed chan struct{}
}

func (c *bufferedConn) Read(p []byte) (int, error) {
	if n := c.buffered.Buffered(); n > 0 {
		return c.buffered.Read(p[:min(len(p), n)])
	}
	return c.Conn.Read(p)
}

func (c *bufferedConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// singleListener is a net.Listener with exactly one connection.
type singleListener struct {
	conns chan net.Conn
	addr  net.Addr
	once  sync.Once
	stop  chan struct{}
}

func newSingleListener(conn net.Conn) *singleListener {
	l := &singleListener{conns: make(chan net.Conn, 1), addr: conn.LocalAddr(), stop: make(chan struct{})}
	l.conns <- conn
	return l
}

func (l *singleListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.stop:
		return nil, net.ErrClosed
	}
}

func (l *singleListener) Close() error {
	l.once.Do(func() { close(l.stop) })
	return nil
}

func (l *singleListener) Addr() net.Addr { return l.addr }
