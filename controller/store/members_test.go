package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

func server(n int) Server {
	return Server{Name: fmt.Sprint("host-", n), PeerURL: fmt.Sprintf("https://10.0.0.%d:2380", n)}
}

func member(n int) Member {
	return Member{ID: uint64(n), Name: server(n).Name, PeerURL: server(n).PeerURL}
}

func unstarted(n int) Member {
	m := member(n)
	m.Name, m.Learner = "", true
	return m
}

func TestAdmission(t *testing.T) {
	moved := server(2)
	moved.PeerURL = "https://10.0.0.9:2380"
	for name, c := range map[string]struct {
		members []Member
		known   []Server
		server  Server
		stale   []uint64
		err     string
	}{
		"the first other":      {members: []Member{member(1)}, server: server(2)},
		"joined once before":   {members: []Member{member(1), unstarted(2)}, known: []Server{server(2)}, server: server(2), stale: []uint64{2}},
		"and moved since":      {members: []Member{member(1), unstarted(2)}, known: []Server{server(2)}, server: moved, stale: []uint64{2}},
		"beside another":       {members: []Member{member(1), unstarted(3)}, known: []Server{server(3)}, server: server(2)},
		"it runs already":      {members: []Member{member(1), member(2)}, server: server(2), err: "there is a server of that name already: host-2"},
		"its address is taken": {members: []Member{member(1), member(2)}, server: Server{Name: "x", PeerURL: server(2).PeerURL}, err: "10.0.0.2:2380 is server host-2"},
	} {
		registered := map[string]Server{}
		for _, s := range c.known {
			registered[s.Name] = s
		}
		stale, err := admission(c.members, registered, c.server)
		if !slices.Equal(stale, c.stale) || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: replaces %v, %v", name, stale, err)
		}
	}
}

// fakeCluster keeps etcd's rules that matter here: one member an address, and
// numbers that are never used twice.
type fakeCluster struct {
	clientv3.Cluster
	members []*pb.Member
	next    uint64
	err     error
}

func (f *fakeCluster) MemberAddAsLearner(_ context.Context, urls []string) (*clientv3.MemberAddResponse, error) {
	if f.err != nil {
		return nil, f.err
	}
	for _, m := range f.members {
		if m.PeerURLs[0] == urls[0] {
			return nil, rpctypes.ErrPeerURLExist
		}
	}
	f.next++
	added := &pb.Member{ID: 100 + f.next, PeerURLs: urls, IsLearner: true}
	f.members = append(f.members, added)
	return &clientv3.MemberAddResponse{Member: added, Members: f.members}, nil
}

func (f *fakeCluster) MemberRemove(_ context.Context, id uint64) (*clientv3.MemberRemoveResponse, error) {
	f.members = slices.DeleteFunc(f.members, func(m *pb.Member) bool { return m.ID == id })
	return &clientv3.MemberRemoveResponse{}, f.err
}

func TestAdmitReplacesAndNames(t *testing.T) {
	f := &fakeCluster{members: []*pb.Member{
		{ID: 1, Name: "host-1", PeerURLs: []string{server(1).PeerURL}},
		{ID: 2, PeerURLs: []string{server(2).PeerURL}, IsLearner: true},
		{ID: 3, PeerURLs: []string{server(3).PeerURL}, IsLearner: true},
		{ID: 4, PeerURLs: []string{server(4).PeerURL}, IsLearner: true},
	}}
	registered := map[string]Server{"host-2": server(2), "host-3": server(3)}
	got, err := admit(t.Context(), f, []uint64{2}, registered, server(2))
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]uint64{}
	for _, m := range got {
		names[m.Name] = m.ID
	}
	if len(got) != 4 || names["host-1"] != 1 || names["host-2"] != 101 || names["host-3"] != 3 || names["unknown-4"] != 4 {
		t.Errorf("members %v", names)
	}
	want := "host-1=https://10.0.0.1:2380,host-3=https://10.0.0.3:2380,unknown-4=https://10.0.0.4:2380,host-2=https://10.0.0.2:2380"
	if text := initialCluster(got); text != want {
		t.Errorf("initial cluster %s", text)
	}
}

func TestAdmitSaysWhatPasses(t *testing.T) {
	for cause, want := range map[error]error{
		rpctypes.ErrUnhealthy:              ErrNotNow,
		rpctypes.ErrTooManyLearners:        ErrNotNow,
		rpctypes.ErrMemberNotEnoughStarted: ErrQuorum,
	} {
		_, err := admit(t.Context(), &fakeCluster{err: cause}, nil, nil, server(2))
		if !errors.Is(err, want) || !errors.Is(err, cause) {
			t.Errorf("%v became %v", cause, err)
		}
	}
}

func TestRemoval(t *testing.T) {
	members := []Member{member(1), member(2), unstarted(3)}
	registered := map[string]Server{"host-3": server(3), "host-4": server(4)}
	for name, want := range map[string]struct {
		id    uint64
		found bool
	}{"host-2": {2, true}, "host-3": {3, true}, "host-4": {0, true}, "host-5": {0, false}, "": {0, false}} {
		if id, found := removal(members, registered, name); id != want.id || found != want.found {
			t.Errorf("%q: member %d, %t", name, id, found)
		}
	}
}

func members(numbers ...int) (all []Member) {
	for _, n := range numbers {
		all = append(all, member(n))
	}
	return all
}

func TestShortage(t *testing.T) {
	for _, c := range []struct {
		voters, silent []Member
		want           string
	}{
		{members(1), nil, ""},
		{members(1, 2, 3), nil, ""},
		{members(1, 2, 3), members(2, 1), "2 of 3 servers are needed, 1 answer: host-1 (10.0.0.1:2380) and host-2 (10.0.0.2:2380) do not"},
		{members(1, 2), members(1), "2 of 2 servers are needed, 1 answer: host-1 (10.0.0.1:2380) does not"},
		{members(1, 2, 3, 4, 5), members(1), "3 of 5 servers are needed, 4 answer: host-1 (10.0.0.1:2380) does not"},
	} {
		if got := shortage(c.voters, c.silent); got != c.want {
			t.Errorf("%q", got)
		}
	}
}

// TestRefusal: etcd calls a cluster unhealthy for some seconds after one of its
// servers has gone or come. That passes; too few servers do not.
func TestRefusal(t *testing.T) {
	passes, lasts := understand(rpctypes.ErrUnhealthy), understand(rpctypes.ErrMemberNotEnoughStarted)
	for name, c := range map[string]struct {
		err            error
		voters, silent []Member
		want           error
	}{
		"the one that goes is dead":          {passes, members(1, 2, 3), members(3), ErrNotNow},
		"all are there, one came just now":   {passes, members(1, 2, 3), nil, ErrNotNow},
		"another one is dead":                {passes, members(1, 2, 3), members(2), ErrQuorum},
		"two are dead":                       {passes, members(1, 2, 3), members(2, 3), ErrQuorum},
		"two of five are, one of which goes": {passes, members(1, 2, 3, 4, 5), members(2, 3), ErrNotNow},
		"etcd says too few":                  {lasts, members(1, 2, 3), members(3), ErrQuorum},
		"anything else":                      {rpctypes.ErrNoSpace, members(1, 2, 3), nil, rpctypes.ErrNoSpace},
	} {
		if got := refusal(c.err, 3, c.voters, c.silent); !errors.Is(got, c.want) {
			t.Errorf("%s: %v", name, got)
		}
	}
}
