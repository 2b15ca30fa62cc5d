package store

import (
	"context"
	"crypto/tls"
	"errors"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"

	"lighter.dev/lighter/controller/store/storetest"
)

// place is where one server of a test lives.
type place struct {
	dir  string
	name string
	peer netip.AddrPort
}

func newPlace(t *testing.T, name string) place {
	t.Helper()
	return place{dir: filepath.Join(t.TempDir(), "etcd"), name: name, peer: storetest.Port(t)}
}

func (p place) config(join ...Member) Config {
	return Config{Dir: p.dir, Name: p.name, Peer: p.peer, Join: join, ClusterID: "a"}
}

func (p place) server() Server { return Server{Name: p.name, PeerURL: "https://" + p.peer.String()} }

// admit asks until it is the right moment.
func (p place) admit(t *testing.T, through *Store) []Member {
	t.Helper()
	var members []Member
	within(t, p.name+" is admitted", func(ctx context.Context) (err error) {
		members, err = through.Admit(ctx, p.server())
		if err != nil && !errors.Is(err, ErrNotNow) {
			t.Fatal(err)
		}
		return err
	})
	return members
}

// join makes p a member through an existing one, as a server does.
func (p place) join(t *testing.T, through *Store) *Store {
	t.Helper()
	shared, err := through.Shared()
	if err != nil {
		t.Fatal(err)
	}
	members := p.admit(t, through)
	if err := Adopt(p.dir, shared, p.server().PeerURL); err != nil {
		t.Fatal(err)
	}
	return start(t, p.config(members...))
}

func promoted(t *testing.T, s *Store) {
	t.Helper()
	if err := s.Promotion(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// within repeats a look until it succeeds. One look may take long: a change of the
// members that was given up half-way may have happened all the same.
func within(t *testing.T, what string, look func(ctx context.Context) error) {
	t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		err := look(ctx)
		cancel()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func writes(s *Store, key string) func(context.Context) error {
	return func(ctx context.Context) error {
		_, err := s.Client().Put(ctx, key, "1")
		return err
	}
}

// TestThreeServers takes a store through its life with others: it grows, loses a
// member, gets it back, loses its majority, and shrinks.
func TestThreeServers(t *testing.T) {
	t.Parallel()
	at := []place{newPlace(t, "host-1"), newPlace(t, "host-2"), newPlace(t, "host-3")}
	first := start(t, at[0].config())
	put(t, first.Client(), "/before", "1")
	if first.peer.wanted() || answers(t.Context(), first.peer.url()) {
		t.Error("a server that is alone listens for others")
	}
	second := at[1].join(t, first)
	third := at[2].join(t, second)
	promoted(t, second)
	promoted(t, third)
	all := []*Store{first, second, third}
	for _, s := range all {
		if have := get(t, s.Client(), "/before"); have != "1" {
			t.Errorf("%s has %q", s.name, have)
		}
		for _, m := range s.Members() {
			if m.Learner || m.Name == "" || !strings.HasPrefix(m.PeerURL, "https://") {
				t.Errorf("%s: member %+v", s.name, m)
			}
		}
	}
	if _, err := second.Admit(t.Context(), at[2].server()); !errors.Is(err, ErrNameTaken) {
		t.Errorf("two servers of one name: %v", err)
	}

	// One is away: the others write, and it catches up.
	closeStore(t, first)
	within(t, "two of three write", writes(second, "/meanwhile"))
	if why := second.Quorum(t.Context()); !strings.Contains(why, "host-1") {
		t.Errorf("quorum: %q", why)
	}
	if err := second.Remove(t.Context(), "host-3"); !errors.Is(err, ErrQuorum) || !strings.Contains(err.Error(), "host-1") {
		t.Errorf("a removal that costs the quorum: %v", err)
	}
	all[0] = start(t, at[0].config())
	if have := get(t, all[0].Client(), "/meanwhile"); have != "1" {
		t.Errorf("host-1 has %q", have)
	}

	// All are away and come back one after another, as after a power loss.
	for _, s := range all {
		closeStore(t, s)
	}
	lonely, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if s, err := Start(lonely, at[1].config()); !errors.Is(err, context.DeadlineExceeded) {
		t.Error("one of three works", errors.Join(err, s.Close()))
	}
	started := make(chan *Store)
	for _, p := range at {
		go func() {
			s, err := Start(t.Context(), p.config())
			if err != nil {
				t.Error(err)
			}
			started <- s
		}()
	}
	for range at {
		s := <-started
		all[int(s.name[5]-'1')] = s
		t.Cleanup(func() { closeStore(t, s) })
	}
	within(t, "three of three write", writes(all[2], "/after"))

	// One goes for good: it ends, does not come back, and nobody waits for it.
	within(t, "host-3 is taken out", func(ctx context.Context) error { return all[0].Remove(ctx, "host-3") })
	select {
	case err := <-all[2].Failed():
		if !errors.Is(err, errRemoved) {
			t.Errorf("host-3 ended: %v", err)
		}
	case <-time.After(time.Minute):
		t.Error("host-3 does not know that it was removed")
	}
	if n := len(all[0].Members()); n != 2 {
		t.Errorf("%d members", n)
	}
	if err := all[0].Remove(t.Context(), "host-3"); !errors.Is(err, ErrNoServer) {
		t.Errorf("removed twice: %v", err)
	}
}

// TestInterruptedJoin: whatever a joiner has done before it dies, it may begin
// anew, and the first server works all the time.
func TestInterruptedJoin(t *testing.T) {
	t.Parallel()
	first := start(t, newPlace(t, "host-1").config())
	joiner := newPlace(t, "host-2")
	shared, err := first.Shared()
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		joiner.admit(t, first)
		put(t, first.Client(), "/x", "1")
	}
	// It has prepared its folder, and is started without being told to join.
	if err := Adopt(joiner.dir, shared, joiner.server().PeerURL); err != nil {
		t.Fatal(err)
	}
	if s, err := Start(t.Context(), joiner.config()); !errors.Is(err, errDataLost) {
		t.Error("a store of its own for the same cluster", errors.Join(err, s.Close()))
	}
	// It was told about members who are not the members any more.
	members := joiner.admit(t, first)
	if _, err := first.Admit(t.Context(), Server{Name: "host-3", PeerURL: "https://127.0.0.1:1"}); err != nil {
		t.Fatal(err)
	}
	if s, err := Start(t.Context(), joiner.config(members...)); !errors.Is(err, ErrMembersChanged) {
		t.Error("joined with an old list", errors.Join(err, s.Close()))
	}
	second := joiner.join(t, first)
	put(t, first.Client(), "/x", "2") // a learner is nobody to wait for
	closeStore(t, second)
	put(t, first.Client(), "/x", "3")
	second = start(t, joiner.config())
	promoted(t, second)
	if have := get(t, second.Client(), "/x"); have != "3" {
		t.Errorf("host-2 has %q", have)
	}
}

func TestPeerPortInUse(t *testing.T) {
	t.Parallel()
	one, two := newPlace(t, "host-1"), newPlace(t, "host-2")
	first := start(t, one.config())
	first.peer.addr = netip.MustParseAddrPort(strings.TrimPrefix(first.transport.ServerList[0], "https://"))
	_, err := first.Admit(t.Context(), two.server())
	if err == nil || !strings.Contains(err.Error(), "address already in use") || !strings.Contains(err.Error(), "--etcd-peer-port") {
		t.Errorf("port in use: %v", err)
	}
	put(t, first.Client(), "/x", "1")
}

// TestPeersProveThemselves: the port for others takes nobody without a
// certificate of etcd's CA.
func TestPeersProveThemselves(t *testing.T) {
	t.Parallel()
	first := start(t, newPlace(t, "host-1").config())
	if err := first.reachable(t.Context()); err != nil {
		t.Fatal(err)
	}
	conn, err := (&tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}}).DialContext(t.Context(), "tcp", first.peer.addr.String())
	if err == nil {
		_, err = conn.Read(make([]byte, 1)) // TLS 1.3 tells a client when it reads
		conn.Close()
	}
	if err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("without a certificate: %v", err)
	}
	if info, err := os.Stat(first.peer.marker); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
}

// TestDataOfEarlierVersions: a member that was made without an address for others
// takes its name and one as soon as somebody joins.
func TestDataOfEarlierVersions(t *testing.T) {
	t.Parallel()
	one := newPlace(t, "host-1")
	if err := os.MkdirAll(one.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	files, err := ensureCerts(pkiDir(one.dir))
	if err != nil {
		t.Fatal(err)
	}
	endpoint := url.URL{Scheme: "https", Host: storetest.Port(t).String()}
	c := embeddedConfig(Config{Dir: one.dir, Name: "lighter"}, files, endpoint, false)
	c.ListenPeerUrls[0].Scheme, c.AdvertisePeerUrls[0].Scheme = "http", "http"
	c.InitialCluster = c.InitialClusterFromName(c.Name)
	old, err := embed.StartEtcd(c)
	if err != nil {
		t.Fatal(err)
	}
	<-old.Server.ReadyNotify()
	client := v3client.New(old.Server)
	put(t, client, "/x", "1")
	_ = client.Close() // says that its context has ended
	old.Close()

	first := start(t, one.config())
	second := newPlace(t, "host-2").join(t, first)
	promoted(t, second)
	if have := get(t, second.Client(), "/x"); have != "1" {
		t.Errorf("host-2 has %q", have)
	}
	for _, m := range second.Members() {
		if m.Name != "host-1" && m.Name != "host-2" || !strings.HasPrefix(m.PeerURL, "https://") {
			t.Errorf("member %+v", m)
		}
	}
}
