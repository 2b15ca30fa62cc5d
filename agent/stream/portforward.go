package stream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"

	"github.com/containernetworking/plugins/pkg/ns"
	"k8s.io/cri-streaming/pkg/streaming/portforward"
	"k8s.io/streaming/pkg/httpstream/wsstream"
)

func (h *handler) servePortForward(w http.ResponseWriter, r *http.Request) {
	pod, ok := h.pod(w, r)
	if !ok {
		return
	}
	tunnel := wsstream.IsWebSocketRequestWithTunnelingProtocol(r)
	opts := &portforward.V4Options{}
	if !tunnel {
		var err error
		if opts, err = portforward.NewV4Options(r); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
	}
	inner := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		watched, r, done := untilDisconnect(w, r)
		defer done()
		portforward.ServePortForward(watched, r, forwarder{pod}, pod.Name, pod.UID, opts,
			idleTimeout, creationTimeout, portforward.SupportedProtocols)
	})
	if tunnel {
		untunnel(w, r, inner)
		return
	}
	inner(w, r)
}

// forwarder dials in a pod.
type forwarder struct{ pod Pod }

// PortForward implements portforward.PortForwarder.
func (f forwarder) PortForward(ctx context.Context, _, _ string, port int32, stream io.ReadWriteCloser) error {
	defer func() { _ = stream.Close() }()
	conn, err := f.dial(ctx, port)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	go func() {
		_, _ = io.Copy(conn, stream)
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.CloseWrite() // the client has sent all; the answer may still come
		}
	}()
	if _, err := io.Copy(stream, conn); err != nil && ctx.Err() == nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("forward port %d of pod %s: %w", port, f.pod.Name, err)
	}
	return nil
}

// dial connects to the pod's localhost, IPv4 first, as the kubelet's runtimes do.
func (f forwarder) dial(ctx context.Context, port int32) (net.Conn, error) {
	var conn net.Conn
	dial := func() error {
		var errs []error
		for _, address := range []string{"127.0.0.1", "::1"} {
			// A literal address is dialled on this very thread, see net.Dialer.
			c, err := new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort(address, strconv.Itoa(int(port))))
			if err == nil {
				conn = c
				return nil
			}
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	}
	var err error
	if f.pod.NetNS == "" {
		err = dial()
	} else {
		err = ns.WithNetNSPath(f.pod.NetNS, func(ns.NetNS) error { return dial() })
	}
	if err != nil {
		return nil, fmt.Errorf("connect to port %d of pod %s: %w", port, f.pod.Name, err)
	}
	return conn, nil
}
