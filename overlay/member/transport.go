package member

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/hashicorp/memberlist"
)

// transport is memberlist's own over UDP and TCP, but its dials end when the
// member shuts down, and its sockets are born where Config.Do says.
type transport struct {
	*memberlist.NetTransport
	ctx    context.Context //nolint:containedctx // memberlist's Transport passes none
	cancel context.CancelFunc
	do     func(f func() error) error
}

var _ memberlist.NodeAwareTransport = (*transport)(nil)

func listen(c *memberlist.Config, do func(f func() error) error) (*transport, error) {
	if do == nil {
		do = func(f func() error) error { return f() }
	}
	t := &transport{do: do}
	err := do(func() (err error) {
		t.NetTransport, err = memberlist.NewNetTransport(&memberlist.NetTransportConfig{
			BindAddrs: []string{c.BindAddr}, BindPort: c.BindPort, Logger: c.Logger,
		})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open sockets: %w", err)
	}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	return t, nil
}

// DialAddressTimeout opens a stream for a state exchange.
func (t *transport) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	return t.DialTimeout(a.Addr, timeout)
}

// DialTimeout opens a stream for a state exchange.
func (t *transport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	d := net.Dialer{Timeout: timeout}
	var conn net.Conn
	err := t.do(func() (err error) {
		conn, err = d.DialContext(t.ctx, "tcp", addr)
		return err
	})
	return conn, err
}

// Shutdown closes the sockets.
func (t *transport) Shutdown() error {
	t.cancel()
	return t.NetTransport.Shutdown()
}
