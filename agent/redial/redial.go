// Package redial keeps a lost network from costing more time than it was lost.
//
// TCP doubles its pauses between retransmissions: after five seconds without a
// network, a connection stays silent for up to six more, and so does a new one
// whose first packet was lost. An agent has a second to show that it lives. So a
// Dialer tries again and again, side by side, and can drop connections that may
// be stuck.
package redial

import (
	"context"
	"net"
	"time"

	"k8s.io/client-go/util/connrotation"
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
type Dialer struct{ *connrotation.Dialer }

// New returns a Dialer without connections.
func New() *Dialer { return newDialer((&net.Dialer{KeepAlive: limit}).DialContext) }

func newDialer(dial dialFunc) *Dialer {
	return &Dialer{connrotation.NewDialer(func(ctx context.Context, network, address string) (net.Conn, error) {
		return race(ctx, dial, network, address)
	})}
}

// Drop closes all connections; whoever uses one makes a new one.
func (d *Dialer) Drop() { d.CloseAll() }

type result struct {
	conn net.Conn
	err  error
}

// race starts a try after another, without giving up the ones under way. The
// first connection wins; an answer that says no (refused, no route) is final, as
// it is without us.
func race(ctx context.Context, dial dialFunc, network, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel() // ends the losers
	results := make(chan result)
	try := func() {
		ctx, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		conn, err := dial(ctx, network, address)
		if err != nil && ctx.Err() != nil {
			return // no answer: another try goes on
		}
		select {
		case results <- result{conn, err}:
		case <-ctx.Done():
			if conn != nil {
				conn.Close() // nobody waits any more
			}
		}
	}
	ticker := time.NewTicker(again)
	defer ticker.Stop()
	go try()
	for {
		select {
		case r := <-results:
			return r.conn, r.err
		case <-ticker.C:
			go try()
		case <-ctx.Done():
			return nil, &net.OpError{Op: "dial", Net: network, Err: context.Cause(ctx)}
		}
	}
}
