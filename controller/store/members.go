package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Member is one of the servers that hold the store. Learners get all that is
// written but have no vote, so that one which is away holds up nobody.
type Member struct {
	ID uint64 `json:"-"`
	// Name is "" before it has started for the first time.
	Name    string `json:"name"`
	PeerURL string `json:"peerURL"`
	Learner bool   `json:"learner,omitempty"`
}

var (
	// ErrNameTaken: a server of that name is a member.
	ErrNameTaken = errors.New("there is a server of that name already")
	// ErrQuorum: the change would leave too few servers, or too few are there now.
	ErrQuorum = errors.New("too few servers would be left to decide")
	// ErrNoServer: there is no server of that name.
	ErrNoServer = errors.New("no such server")
	// ErrAddressTaken: another member has that address.
	ErrAddressTaken = errors.New("a server has that address already")
	// ErrNotNow: wait a moment and try again.
	ErrNotNow = errors.New("the servers are not ready for a change yet")
)

// Members lists those of the embedded store as this server knows them; nil for
// an external one.
func (s *Store) Members() []Member {
	if s.etcd == nil {
		return nil
	}
	var all []Member
	for _, m := range s.etcd.Server.Cluster().Members() {
		all = append(all, Member{ID: uint64(m.ID), Name: m.Name, PeerURL: strings.Join(m.PeerURLs, ","), Learner: m.IsLearner})
	}
	return all
}

// Admit makes a server a member and returns all members with their names, for
// its Config.Join. It may be repeated until the server has started.
func (s *Store) Admit(ctx context.Context, server Server) ([]Member, error) {
	s.changes.Lock()
	defer s.changes.Unlock()
	registered, err := s.Servers(ctx)
	if err != nil {
		return nil, err
	}
	stale, err := admission(s.Members(), registered, server)
	if err != nil {
		return nil, err
	}
	if err := s.reachable(ctx); err != nil {
		return nil, err
	}
	if err := s.Register(ctx, server); err != nil {
		return nil, err
	}
	registered[server.Name] = server
	return admit(ctx, s.client, stale, registered, server)
}

// admission decides whether a server may become a member, and in whose stead: a
// member that has never started is what is left of a join that was interrupted.
// It is always replaced, never used again: what its log had acknowledged is lost.
func admission(members []Member, registered map[string]Server, server Server) (stale []uint64, err error) {
	for _, m := range members {
		switch {
		case m.Name == server.Name:
			return nil, fmt.Errorf("%w: %s", ErrNameTaken, m.Name)
		case m.Name != "" && m.PeerURL == server.PeerURL:
			return nil, fmt.Errorf("%w: %s is server %s: give this one another --node-ip or --etcd-peer-port", ErrAddressTaken, m.PeerURL, m.Name)
		case m.Name == "" && (m.PeerURL == server.PeerURL || m.PeerURL == registered[server.Name].PeerURL):
			stale = append(stale, m.ID)
		}
	}
	return stale, nil
}

// reachable opens the port for others and tells etcd about it, if this server
// has been alone so far.
func (s *Store) reachable(ctx context.Context) error {
	if err := s.peer.open(s.etcd.Server); err != nil {
		return err
	}
	if !s.peer.wanted() {
		if err := s.peer.want(); err != nil {
			return fmt.Errorf("store: %w", err)
		}
		close(s.others)
	}
	return s.announce(ctx)
}

// announce changes the address that others have of this member, if it is another.
func (s *Store) announce(ctx context.Context) error {
	self := uint64(s.etcd.Server.MemberID())
	for _, m := range s.Members() {
		if m.ID == self && m.PeerURL != s.peer.url() {
			if _, err := s.client.MemberUpdate(ctx, self, []string{s.peer.url()}); err != nil {
				return fmt.Errorf("store: tell others about %s: %w", s.peer.url(), err)
			}
		}
	}
	return nil
}

// admit acts on what admission found.
func admit(ctx context.Context, cluster clientv3.Cluster, stale []uint64, registered map[string]Server, server Server) ([]Member, error) {
	for _, id := range stale {
		if _, err := cluster.MemberRemove(ctx, id); err != nil {
			return nil, fmt.Errorf("store: remove what an interrupted join of %s left: %w", server.Name, understand(err))
		}
	}
	reply, err := cluster.MemberAddAsLearner(ctx, []string{server.PeerURL})
	if errors.Is(err, rpctypes.ErrMemberNotFound) {
		// etcd makes a member's number of its address and the second that it is, and
		// never takes one back.
		return nil, fmt.Errorf("%w: server %s was removed just now", ErrNotNow, server.Name)
	}
	if err != nil {
		return nil, fmt.Errorf("store: add server %s: %w", server.Name, understand(err))
	}
	var all []Member
	for _, m := range reply.Members {
		member := Member{ID: m.ID, Name: m.Name, PeerURL: strings.Join(m.PeerURLs, ","), Learner: m.IsLearner}
		if m.ID == reply.Member.ID {
			member.Name = server.Name
		}
		if member.Name == "" {
			member.Name = nameOf(member, registered)
		}
		all = append(all, member)
	}
	return all, nil
}

// nameOf names a member that has not started. etcd wants names that differ.
func nameOf(m Member, registered map[string]Server) string {
	for name, server := range registered {
		if server.PeerURL == m.PeerURL {
			return name
		}
	}
	return fmt.Sprintf("unknown-%x", m.ID)
}

// understand tells apart what passes, what costs the quorum, and the rest.
func understand(err error) error {
	switch {
	case errors.Is(err, rpctypes.ErrUnhealthy), errors.Is(err, rpctypes.ErrTooManyLearners), errors.Is(err, rpctypes.ErrMemberLearnerNotReady):
		return fmt.Errorf("%w: %w", ErrNotNow, err)
	case errors.Is(err, rpctypes.ErrMemberNotEnoughStarted):
		return fmt.Errorf("%w: %w", ErrQuorum, err)
	}
	return err
}

// Promotion gives a learner its vote, once it has caught up. Until then it asks
// again and again; a server with a vote returns at once.
func (s *Store) Promotion(ctx context.Context) error {
	// A moment after the start: servers that join together are all learners then,
	// for whom etcd demands less.
	const pause = 300 * time.Millisecond
	if s.etcd == nil {
		return nil
	}
	for s.etcd.Server.IsLearner() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
		_, err := s.client.MemberPromote(ctx, uint64(s.etcd.Server.MemberID()))
		if err = understand(err); err != nil && ctx.Err() == nil && !errors.Is(err, rpctypes.ErrMemberNotLearner) {
			s.log.Info("this server has no vote yet", "why", err)
		}
	}
	return nil
}

// Remove takes a server out of the cluster for good. It returns ErrQuorum
// if too few would be left.
func (s *Store) Remove(ctx context.Context, name string) error {
	s.changes.Lock()
	defer s.changes.Unlock()
	registered, err := s.Servers(ctx)
	if err != nil {
		return err
	}
	id, found := removal(s.Members(), registered, name)
	if !found {
		return fmt.Errorf("%w: %q", ErrNoServer, name)
	}
	if id != 0 {
		if _, err := s.client.MemberRemove(ctx, id); err != nil {
			voters, silent := s.rollCall(ctx)
			return refusal(understand(err), id, voters, silent)
		}
	}
	if _, err := s.client.Delete(ctx, serversPrefix+name); err != nil {
		return fmt.Errorf("store: forget server %s: %w", name, err)
	}
	return nil
}

// refusal says why etcd does not remove a member, given who has a vote and who of
// them is silent. etcd needs seconds to notice that a server is gone, or back.
func refusal(err error, id uint64, voters, silent []Member) error {
	switch {
	case errors.Is(err, ErrNotNow) && enoughWithout(id, voters, silent):
		return err
	case errors.Is(err, ErrNotNow), errors.Is(err, ErrQuorum):
		return fmt.Errorf("%w: %s", ErrQuorum, shortage(voters, silent))
	}
	return fmt.Errorf("store: remove a server: %w", err)
}

// removal finds the member behind a name; 0 if there is none but the server has
// registered, as all have with an external etcd.
func removal(members []Member, registered map[string]Server, name string) (id uint64, found bool) {
	server, known := registered[name]
	at := slices.IndexFunc(members, func(m Member) bool {
		return m.Name != "" && m.Name == name || m.Name == "" && known && m.PeerURL == server.PeerURL
	})
	if at >= 0 {
		return members[at].ID, true
	}
	return 0, known
}
