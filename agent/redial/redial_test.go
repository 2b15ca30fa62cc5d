package redial

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// closing counts what is closed.
type closing struct {
	net.Conn
	closed *atomic.Int32
}

func (c closing) Close() error {
	c.closed.Add(1)
	return nil
}

// TestBackSoonAfterTheNetwork: packets vanish for five seconds; the connection is
// there a quarter of a second later.
func TestBackSoonAfterTheNetwork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var tries, closed atomic.Int32
		conn, err := newDialer(NewServers("server:6443"), func(ctx context.Context, _, _ string) (net.Conn, error) {
			tries.Add(1)
			if time.Since(start) < 5*time.Second {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return closing{closed: &closed}, nil
		}).DialContext(t.Context(), "tcp", "server:6443")
		if err != nil || conn == nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took > 5*time.Second+again {
			t.Errorf("connected after %s", took)
		}
		if n := tries.Load(); n != 21 {
			t.Errorf("%d tries", n)
		}
	})
}

// TestSlowNetwork: a round trip takes longer than the pause between tries. The
// first try wins, the others leave nothing open.
func TestSlowNetwork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var closed atomic.Int32
		_, err := race(t.Context(), func(context.Context, string, string) (net.Conn, error) {
			time.Sleep(time.Second)
			return closing{closed: &closed}, nil
		}, "tcp", []string{"server:6443"})
		if took := time.Since(start); err != nil || took != time.Second {
			t.Errorf("took %s, %v", took, err)
		}
		time.Sleep(patience)
		if n := closed.Load(); n < 3 {
			t.Errorf("%d of the losers are closed", n)
		}
	})
}

func TestRefusedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		_, err := race(t.Context(), func(context.Context, string, string) (net.Conn, error) {
			return nil, syscall.ECONNREFUSED
		}, "tcp", []string{"server:6443"})
		if !errors.Is(err, syscall.ECONNREFUSED) || time.Since(start) != 0 {
			t.Errorf("%v after %s", err, time.Since(start))
		}
	})
}

func TestGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		_, err := race(t.Context(), func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}, "tcp", []string{"server:6443"})
		if err == nil || time.Since(start) > limit {
			t.Errorf("%v after %s", err, time.Since(start))
		}
	})
}
