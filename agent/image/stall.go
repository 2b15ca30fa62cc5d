package image

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// stallTimeout ends a transfer that has moved no byte for so long.
const stallTimeout = 30 * time.Second

// errStalled is what became of a request that did not go on. It is no net.Error:
// containerd's client would try a timeout five times before we hear of it.
var errStalled = errors.New("the transfer stood still")

// guardStalls ends requests whose answer does not come, or whose body stops moving
// in either direction, after the time given.
func guardStalls(rt http.RoundTripper, after time.Duration) http.RoundTripper {
	return stallGuard{rt, after}
}

type stallGuard struct {
	next  http.RoundTripper
	after time.Duration
}

func (g stallGuard) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	next := req.WithContext(ctx)
	if req.Body != nil && req.Body != http.NoBody {
		next.Body = newGuardedBody(ctx, cancel, req.Body, g.after, func() {})
	}
	resp, err := g.next.RoundTrip(next)
	if err != nil {
		var netErr net.Error
		if errors.Is(context.Cause(ctx), errStalled) || errors.As(err, &netErr) && netErr.Timeout() && req.Context().Err() == nil {
			err = errors.Join(errStalled, err)
		}
		cancel(nil)
		return nil, err
	}
	resp.Body = newGuardedBody(ctx, cancel, resp.Body, g.after, func() { cancel(nil) })
	return resp, nil
}

// CloseIdleConnections lets http.Client close the transport inside.
func (g stallGuard) CloseIdleConnections() {
	if c, ok := g.next.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// guardedBody cancels its request when nobody could read from it for a while.
type guardedBody struct {
	io.ReadCloser
	ctx   context.Context
	after time.Duration
	timer *time.Timer
	once  sync.Once
	close func()
}

func newGuardedBody(ctx context.Context, cancel context.CancelCauseFunc, body io.ReadCloser, after time.Duration, closed func()) *guardedBody {
	return &guardedBody{
		ReadCloser: body, ctx: ctx, after: after, close: closed,
		timer: time.AfterFunc(after, func() { cancel(errStalled) }),
	}
}

func (b *guardedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	switch {
	case err != nil:
		b.timer.Stop() // all is read; what follows has limits of its own
		if errors.Is(context.Cause(b.ctx), errStalled) {
			err = errStalled
		}
	case n > 0:
		b.timer.Reset(b.after)
	}
	return n, err
}

func (b *guardedBody) Close() error {
	b.once.Do(func() { b.timer.Stop(); b.close() })
	return b.ReadCloser.Close()
}
