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
	if s.etcd == nil {
		return ""
	}
	self := uint64(s.etcd.Server.MemberID())
	var mu sync.Mutex
	var group sync.WaitGroup
	var voters int
	var silent []string
	for _, m := range s.Members() {
		if m.Learner {
			continue
		}
		voters++
		if m.ID == self {
			continue
		}
		group.Go(func() {
			if !answers(ctx, m.PeerURL) {
				mu.Lock()
				defer mu.Unlock()
				silent = append(silent, fmt.Sprintf("%s (%s)", m.Name, strings.TrimPrefix(m.PeerURL, "https://")))
			}
		})
	}
	group.Wait()
	return shortage(voters, silent)
}

// shortage puts it in words. Whoever answers may still be unable to decide: then
// the servers are about to find each other.
func shortage(voters int, silent []string) string {
	if len(silent) == 0 {
		return ""
	}
	slices.Sort(silent)
	verb := "does"
	if len(silent) > 1 {
		verb = "do"
	}
	return fmt.Sprintf("%d of %d servers are needed, %d answer: %s %s not", voters/2+1, voters, voters-len(silent), strings.Join(silent, " and "), verb)
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
