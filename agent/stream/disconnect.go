package stream

import (
	"bufio"
	"context"
	"net"
	"net/http"
	"os"
)

// untilDisconnect gives a request a context that ends with its connection. Once a
// connection is hijacked net/http no longer notices that the client went away;
// the stream protocols keep reading from it, so a failed read is the sign.
func untilDisconnect(w http.ResponseWriter, r *http.Request) (http.ResponseWriter, *http.Request, func()) {
	ctx, cancel := context.WithCancel(r.Context())
	return &hijackWatcher{ResponseWriter: w, lost: cancel}, r.WithContext(ctx), cancel
}

type hijackWatcher struct {
	http.ResponseWriter
	lost func()
}

// Hijack implements http.Hijacker.
func (w *hijackWatcher) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	watched := &watchedConn{Conn: conn, lost: w.lost}
	// What the server has read ahead comes first.
	if n := rw.Reader.Buffered(); n > 0 {
		if watched.ahead, err = rw.Reader.Peek(n); err != nil {
			return nil, nil, err
		}
	}
	return watched, bufio.NewReadWriter(bufio.NewReader(watched), bufio.NewWriter(watched)), nil
}

// Flush implements http.Flusher.
func (w *hijackWatcher) Flush() { _ = http.NewResponseController(w.ResponseWriter).Flush() }

// Unwrap serves http.ResponseController.
func (w *hijackWatcher) Unwrap() http.ResponseWriter { return w.ResponseWriter }

type watchedConn struct {
	net.Conn
	ahead []byte
	lost  func()
}

func (c *watchedConn) Read(p []byte) (int, error) {
	if len(c.ahead) > 0 {
		n := copy(p, c.ahead)
		c.ahead = c.ahead[n:]
		return n, nil
	}
	n, err := c.Conn.Read(p)
	if err != nil && !os.IsTimeout(err) {
		c.lost()
	}
	return n, err
}

// Close implements net.Conn.
func (c *watchedConn) Close() error {
	c.lost()
	return c.Conn.Close()
}
