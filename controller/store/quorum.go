package store

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// lookEvery is how often a running server looks whether there is a leader.
	lookEvery = time.Second
	// patience is for how many looks an election may be under way.
	patience = 3
	// knock is how long a server may take to take a connection.
	knock = 500 * time.Millisecond
)

// watch reports the loss of the quorum, and delivers the end of etcd.
func (s *Store) watch() {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	alone := 0
	for {
		select {
		case <-s.closed:
			return
		case err, more := <-s.etcd.Err():
			if more {
				s.failed <- err
			}
			return
		case <-s.etcd.Server.StopNotify():
			select {
			case <-s.closed:
			default:
				s.failed <- errRemoved
			}
			return
		case <-tick.C:
		}
		switch leaderless := s.etcd.Server.Leader() == 0; {
		case leaderless:
			if alone++; alone == patience {
				s.log.Error("the API can neither read nor write", "why", s.Quorum(context.Background()))
			}
		case alone >= patience:
			s.log.Info("enough servers are there again")
			fallthrough
		default:
			alone = 0
		}
	}
}

// Quorum tells people how many servers are needed, and who does not answer; ""
// if all is well.
func (s *Store) Quorum(ctx context.Context) string {
	return shortage(s.rollCall(ctx))
}

// enoughWithout tells whether the servers that would be left without one could
// decide.
func enoughWithout(id uint64, voters, silent []Member) bool {
	is := func(m Member) bool { return m.ID == id }
	left := len(slices.DeleteFunc(slices.Clone(voters), is))
	return left-len(slices.DeleteFunc(slices.Clone(silent), is)) > left/2
}

// rollCall finds the members of the embedded store that have a vote, and those of
// them that do not answer.
func (s *Store) rollCall(ctx context.Context) (voters, silent []Member) {
	if s.etcd == nil {
		return nil, nil
	}
	voters = slices.DeleteFunc(s.Members(), func(m Member) bool { return m.Learner })
	self := uint64(s.etcd.Server.MemberID())
	var mu sync.Mutex
	var group sync.WaitGroup
	for _, m := range voters {
		if m.ID == self {
			continue
		}
		group.Go(func() {
			if !answers(ctx, m.PeerURL) {
				mu.Lock()
				defer mu.Unlock()
				silent = append(silent, m)
			}
		})
	}
	group.Wait()
	return voters, silent
}

// shortage puts it in words. Whoever answers may still be unable to decide: then
// the servers are about to find each other.
func shortage(voters, silent []Member) string {
	if len(silent) == 0 {
		return ""
	}
	var names []string
	for _, m := range silent {
		names = append(names, fmt.Sprintf("%s (%s)", m.Name, strings.TrimPrefix(m.PeerURL, "https://")))
	}
	slices.Sort(names)
	verb := "does"
	if len(names) > 1 {
		verb = "do"
	}
	return fmt.Sprintf("%d of %d servers are needed, %d answer: %s %s not", len(voters)/2+1, len(voters), len(voters)-len(silent), strings.Join(names, " and "), verb)
}

func answers(ctx context.Context, peerURL string) bool {
	at, err := url.Parse(peerURL)
	if err != nil {
		return false
	}
	conn, err := (&net.Dialer{Timeout: knock}).DialContext(ctx, "tcp", at.Host)
	if err != nil {
		return false
	}
	conn.Close()
	return true
}
