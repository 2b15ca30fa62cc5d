package redial

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// network is one in which servers answer, refuse, or are silent.
type network struct {
	mu      sync.Mutex
	silent  map[string]bool
	refuse  map[string]bool
	dialled []string
}

func newNetwork() *network { return &network{silent: map[string]bool{}, refuse: map[string]bool{}} }

// set changes what a server does.
func (n *network) set(behaviour map[string]bool, server string, on bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	behaviour[server] = on
}

func (n *network) dial(ctx context.Context, _, server string) (net.Conn, error) {
	n.mu.Lock()
	n.dialled = append(n.dialled, server)
	silent, refuse := n.silent[server], n.refuse[server]
	n.mu.Unlock()
	switch {
	case silent:
		<-ctx.Done()
		return nil, ctx.Err()
	case refuse:
		return nil, syscall.ECONNREFUSED
	}
	ours, _ := net.Pipe()
	return ours, nil
}

// connect wants a connection to a server within a time.
func connect(t *testing.T, d *Dialer, server string, within time.Duration) net.Conn {
	t.Helper()
	began := time.Now()
	c, err := d.DialContext(t.Context(), "tcp", "whatever:6443")
	if err != nil {
		t.Fatal(err)
	}
	if got := c.(*conn).server; got != server {
		t.Errorf("connected to %s, want %s", got, server)
	}
	if took := time.Since(began); took > within {
		t.Errorf("%s took %s", server, took)
	}
	return c
}

func isClosed(c net.Conn) bool {
	_ = c.SetReadDeadline(time.Now().Add(time.Millisecond))
	_, err := c.Read(make([]byte, 1))
	return errors.Is(err, io.ErrClosedPipe)
}

func TestFailover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		servers := NewServers("a", "b", "c")
		d, lease := newDialer(servers, n.dial), newDialer(servers, n.dial)
		watchA, onA := connect(t, d, "a", 0), connect(t, lease, "a", 0)
		// a loses its power: it is silent, and whoever renews a lease finds out.
		n.set(n.silent, "a", true)
		connect(t, d, "b", again)
		lease.Blame()
		if !isClosed(onA) {
			t.Error("the connection to a is still open")
		}
		connect(t, lease, "b", 0)
		connect(t, d, "b", 0) // others know too
		time.Sleep(sign)
		synctest.Wait()
		if !isClosed(watchA) {
			t.Error("a watch of a is stuck")
		}
		// Then b stops in order.
		n.set(n.refuse, "b", true)
		connect(t, d, "c", 0)
		// a is back and the favourite again, some time later.
		n.set(n.silent, "a", false)
		connect(t, d, "c", 0)
		time.Sleep(doubt)
		connect(t, d, "a", 0)
	})
}

// TestSlowServer: a server that was too slow with one answer keeps the others'
// connections, and so does the only one there is, whatever it does.
func TestSlowServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		servers := NewServers("a", "b")
		d, lease := newDialer(servers, n.dial), newDialer(servers, n.dial)
		watch := connect(t, d, "a", 0)
		connect(t, lease, "a", 0)
		lease.Blame()
		connect(t, lease, "b", 0)
		time.Sleep(2 * sign)
		if isClosed(watch) {
			t.Error("a watch of a slow server was closed")
		}
		n.set(n.silent, "a", true)
		servers.Set([]string{"a"})
		only := connectLate(t, lease, n)
		lease.Blame()
		time.Sleep(2 * sign)
		if !isClosed(only) || isClosed(watch) {
			t.Error("what was closed is not the lease's connection alone")
		}
	})
}

// connectLate connects to a, which is silent otherwise.
func connectLate(t *testing.T, d *Dialer, n *network) net.Conn {
	t.Helper()
	n.set(n.silent, "a", false)
	defer func() { n.set(n.silent, "a", true) }()
	return connect(t, d, "a", again)
}

func TestAllAreGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.set(n.refuse, "a", true)
		n.set(n.refuse, "b", true)
		d := newDialer(NewServers("a", "b"), n.dial)
		began := time.Now()
		if _, err := d.DialContext(t.Context(), "tcp", ""); err == nil || time.Since(began) > 0 {
			t.Errorf("%v after %s", err, time.Since(began))
		}
		if _, err := newDialer(NewServers(), n.dial).DialContext(t.Context(), "tcp", ""); err == nil {
			t.Error("connected to nobody")
		}
		// One refuses and one is silent: the first that comes back is found.
		n.set(n.silent, "b", true)
		time.AfterFunc(5*time.Second, func() { n.set(n.refuse, "a", false) })
		connect(t, d, "a", 5*time.Second+2*again)
	})
}

func TestSetDropsWhoIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		servers := NewServers("a", "b")
		d := newDialer(servers, n.dial)
		onA := connect(t, d, "a", 0)
		servers.Set([]string{"b", "a"})
		if isClosed(onA) {
			t.Error("a connection to a server that stays was closed")
		}
		servers.Set([]string{"b"})
		if !isClosed(onA) {
			t.Error("a connection to a server that is gone is open")
		}
		onB := connect(t, d, "b", 0)
		d.Drop()
		if !isClosed(onB) || len(d.conns) != 0 {
			t.Error("Drop leaves connections")
		}
		connect(t, d, "b", 0) // without blame
		if want := []string{"a", "b", "b"}; !slices.Equal(n.dialled, want) {
			t.Errorf("dialled %v", n.dialled)
		}
	})
}
