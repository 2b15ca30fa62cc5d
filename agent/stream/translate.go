package stream

import (
	"context"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	utilproxy "k8s.io/apimachinery/pkg/util/proxy"
	"k8s.io/apiserver/pkg/util/proxy"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	"k8s.io/streaming/pkg/httpstream/wsstream"
)

// isWebSocketV5 recognises v5.channel.k8s.io, which can close single streams.
func isWebSocketV5(r *http.Request) bool {
	return wsstream.IsWebSocketRequestWithStreamCloseProtocol(r)
}

// translateV5 serves a v5 WebSocket by a SPDY handler with the upstream translator.
func translateV5(w http.ResponseWriter, r *http.Request, opts *remotecommand.Options, spdy http.HandlerFunc) {
	throughProxy(w, r, spdy, func(location *url.URL, transport http.RoundTripper) http.Handler {
		return proxy.NewStreamTranslatorHandler(location, transport, 0, proxy.Options{
			Stdin: opts.Stdin, Stdout: opts.Stdout, Stderr: opts.Stderr, Tty: opts.TTY,
		})
	})
}

// untunnel serves a WebSocket that holds a SPDY connection by a SPDY handler.
func untunnel(w http.ResponseWriter, r *http.Request, spdy http.HandlerFunc) {
	throughProxy(w, r, spdy, func(location *url.URL, transport http.RoundTripper) http.Handler {
		return proxy.NewTunnelingHandler(utilproxy.NewUpgradeAwareHandler(location, transport, false, true, refuse{}))
	})
}

// refuse answers for the proxy.
type refuse struct{}

// Error implements utilproxy.ErrorResponder.
func (refuse) Error(w http.ResponseWriter, _ *http.Request, err error) {
	http.Error(w, err.Error(), http.StatusInternalServerError)
}

// throughProxy serves a request by an upstream handler that can only proxy, which
// gets a server of one connection within this process to talk to.
func throughProxy(w http.ResponseWriter, r *http.Request, spdy http.HandlerFunc,
	open func(*url.URL, http.RoundTripper) http.Handler) {
	near, far, err := connect()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer func() { _ = near.Close() }()
	server := &http.Server{
		Handler:           spdy,
		ReadHeaderTimeout: creationTimeout,
		BaseContext:       func(net.Listener) context.Context { return r.Context() },
	}
	listener := &oneConn{conn: far, closed: make(chan struct{})}
	go func() { _ = server.Serve(listener) }()
	defer func() { _ = server.Close() }()
	transport := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return near, nil }}
	open(&url.URL{Scheme: "http", Host: "agent", Path: r.URL.Path, RawQuery: r.URL.RawQuery}, transport).ServeHTTP(w, r)
}

// connect makes two ends of a connection over loopback. (net.Pipe has no buffer,
// by which two ends that both write first wait for each other.)
func connect() (near, far net.Conn, err error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // loopback does not wait
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = listener.Close() }()
	near, err = net.DialTimeout("tcp", listener.Addr().String(), 5*time.Second) //nolint:noctx // bounded by itself
	if err != nil {
		return nil, nil, err
	}
	for {
		if far, err = listener.Accept(); err != nil {
			_ = near.Close()
			return nil, nil, err
		}
		if far.RemoteAddr().String() == near.LocalAddr().String() {
			return near, far, nil
		}
		_ = far.Close() // somebody else was faster
	}
}

// oneConn is a listener that accepts one connection.
type oneConn struct {
	conn   net.Conn
	once   sync.Once
	closed chan struct{}
}

// Accept implements net.Listener.
func (l *oneConn) Accept() (net.Conn, error) {
	var conn net.Conn
	l.once.Do(func() { conn = l.conn })
	if conn != nil {
		return conn, nil
	}
	<-l.closed
	return nil, net.ErrClosed
}

// Close implements net.Listener.
func (l *oneConn) Close() error {
	close(l.closed)
	return nil
}

// Addr implements net.Listener.
func (l *oneConn) Addr() net.Addr { return l.conn.LocalAddr() }
