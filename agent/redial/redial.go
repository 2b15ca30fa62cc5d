// Package redial keeps a lost network, or a lost server, from costing more time
// than it has to.
//
// TCP doubles its pauses between retransmissions: after five seconds without a
// network, a connection stays silent for up to six more, and so does a new one
// whose first packet was lost. An agent has a second to show that it lives. So a
// Dialer tries again and again, side by side, one server after another, and can
// drop connections that may be stuck.
//
//	redial.go   the Dialer and its race
//	servers.go  whom it may call
//	persist.go  a transport for informers, which do not tire
package redial

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"
)

const (
	// again is the pause between two tries.
	again = 250 * time.Millisecond
	// patience is how long one try may take: more than a round trip on any network.
	patience = 3 * time.Second
	// limit is how long all of them may take: as client-go has it.
	limit = 30 * time.Second
)

type dialFunc = func(ctx context.Context, network, address string) (net.Conn, error)

// Dialer makes connections for a rest.Config (as its Dial).
type Dialer struct {
	servers *Servers
	dial    dialFunc

	mu    sync.Mutex
	conns map[*conn]struct{}
}

// New returns a Dialer without connections, to whichever of the servers answers.
func New(servers *Servers) *Dialer {
	return newDialer(servers, (&net.Dialer{KeepAlive: limit}).DialContext)
}

func newDialer(servers *Servers, dial dialFunc) *Dialer {
	d := &Dialer{servers: servers, dial: dial, conns: map[*conn]struct{}{}}
	servers.add(d)
	return d
}

// DialContext connects to a server. Which one is not for the caller to say: its
// address, that of the configuration, is one among others.
func (d *Dialer) DialContext(ctx context.Context, network, _ string) (net.Conn, error) {
	first, err := race(ctx, d.dial, network, d.servers.order())
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: first.conn, server: first.server, dialer: d}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.conns[c] = struct{}{}
	return c, nil
}

// Drop closes all connections; whoever uses one makes a new one.
func (d *Dialer) Drop() { d.close(func(string) bool { return true }) }

// Blame closes all connections because their servers did not answer: others are
// asked first for a while. If a server does not even take a new connection, those
// of other dialers are closed too, as they are stuck as well.
func (d *Dialer) Blame() {
	blamed := map[string]bool{}
	d.close(func(server string) bool {
		blamed[server] = true
		return true
	})
	for server := range blamed {
		d.servers.suspect(server)
		go d.servers.examine(d.dial, server)
	}
}

// close closes the connections to servers for which which says so.
func (d *Dialer) close(which func(server string) bool) {
	d.mu.Lock()
	var closing []*conn
	for c := range d.conns {
		if which(c.server) {
			closing = append(closing, c)
		}
	}
	d.mu.Unlock()
	for _, c := range closing {
		_ = c.Close() // whoever uses it notices
	}
}

// conn is a connection that its dialer knows.
type conn struct {
	net.Conn
	server string
	dialer *Dialer
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.dialer.mu.Lock()
	delete(c.dialer.conns, c)
	c.dialer.mu.Unlock()
	return c.Conn.Close()
}

type result struct {
	server string
	conn   net.Conn
	err    error
}

// errNoServers: there is nobody to call.
var errNoServers = errors.New("no server's address is known")

// race starts a try after another, each at the next server, without giving up the
// ones under way. The first connection wins. A server that says no (refused, no
// route) makes the next try begin at once; if every one has, that is final.
func race(ctx context.Context, dial dialFunc, network string, servers []string) (result, error) {
	if len(servers) == 0 {
		return result{}, &net.OpError{Op: "dial", Net: network, Err: errNoServers}
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel() // ends the losers
	results := make(chan result)
	turn := 0
	next := func() {
		go attempt(ctx, dial, network, servers[turn%len(servers)], results)
		turn++
	}
	ticker := time.NewTicker(again)
	defer ticker.Stop()
	refused := map[string]bool{}
	next()
	for {
		select {
		case r := <-results:
			switch {
			case r.err == nil:
				return r, nil
			case refused[r.server]:
				continue
			}
			if refused[r.server] = true; len(refused) == len(servers) {
				return result{}, r.err
			}
			next()
		case <-ticker.C:
			next()
		case <-ctx.Done():
			return result{}, &net.OpError{Op: "dial", Net: network, Err: context.Cause(ctx)}
		}
	}
}

// attempt is one try. Without an answer it has no result: another one goes on.
func attempt(ctx context.Context, dial dialFunc, network, server string, results chan<- result) {
	limited, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	c, err := dial(limited, network, server)
	if err != nil && limited.Err() != nil {
		return
	}
	select {
	case results <- result{server, c, err}:
	case <-ctx.Done():
		if c != nil {
			c.Close() // nobody waits any more
		}
	}
}
