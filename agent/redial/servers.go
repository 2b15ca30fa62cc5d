package redial

import (
	"context"
	"slices"
	"sync"
	"time"
)

const (
	// doubt is how long a server that did not answer is asked last.
	doubt = 10 * time.Second
	// sign is how long a server has for a sign of life.
	sign = time.Second
)

// Servers are the addresses (host:port) by which the API can be reached, the
// favourite first. Dialers share one, so that what one of them finds out about a
// server is known to all.
type Servers struct {
	mu       sync.Mutex
	list     []string
	doubtful map[string]time.Time // until when
	dialers  []*Dialer
}

// NewServers begins with these.
func NewServers(addresses ...string) *Servers {
	return &Servers{list: addresses, doubtful: map[string]time.Time{}}
}

// Set replaces the list. Connections to servers that are not in it are closed.
func (s *Servers) Set(addresses []string) {
	s.mu.Lock()
	s.list = slices.Clone(addresses)
	s.mu.Unlock()
	s.close(func(server string) bool { return !slices.Contains(addresses, server) })
}

// close closes connections of all dialers.
func (s *Servers) close(which func(server string) bool) {
	s.mu.Lock()
	dialers := slices.Clone(s.dialers)
	s.mu.Unlock()
	for _, d := range dialers {
		d.close(which)
	}
}

// examine closes all connections to a server that does not answer, if there is
// another one.
func (s *Servers) examine(dial dialFunc, server string) {
	s.mu.Lock()
	only := len(s.list) < 2
	s.mu.Unlock()
	if only {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), sign)
	defer cancel()
	if c, err := dial(ctx, "tcp", server); err == nil {
		_ = c.Close() // it was a question
		return
	}
	s.close(func(of string) bool { return of == server })
}

// order is in which order to try them: those in doubt last.
func (s *Servers) order() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	var good, doubtful []string
	for _, server := range s.list {
		if now.Before(s.doubtful[server]) {
			doubtful = append(doubtful, server)
		} else {
			good = append(good, server)
		}
	}
	return append(good, doubtful...)
}

// suspect notes that a server did not answer.
func (s *Servers) suspect(server string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.doubtful[server] = time.Now().Add(doubt)
}

func (s *Servers) add(d *Dialer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dialers = append(s.dialers, d)
}
