package member

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"lighter.dev/lighter/overlay/netns"
	"lighter.dev/lighter/overlay/netns/netnstest"
)

// logs is a buffer that goroutines may write to.
type logs struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logs) count(s string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), s)
}

// fleet is gossip between the hosts of a lab, and the Node objects they see.
type fleet struct {
	lab *netnstest.Lab
	ms  []*Members
	log []*logs

	mu    sync.Mutex
	nodes map[string]*corev1.Node
}

// patience is for gossip, whose own clocks are of seconds and get slower on a
// busy machine.
const patience = time.Minute

var key1, key2 = bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 32)

func newFleet(t *testing.T, hosts int) *fleet {
	t.Helper()
	netnstest.RequireRoot(t)
	f := &fleet{lab: netnstest.NewLab(t, hosts, 1500), nodes: map[string]*corev1.Node{}}
	for i := range hosts {
		f.start(t, i, f.claim(i), key1)
	}
	return f
}

func (f *fleet) claim(i int) Peer {
	return Peer{
		NodeName: fmt.Sprint("node", i), UnderlayIP: f.lab.Hosts[i].IP, VTEPMAC: netns.MAC{2, 0, 0, 0, 0, byte(i)},
		PodCIDR: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 42, byte(i), 0}), 24), AgentPort: 10250,
	}
}

func (f *fleet) setNode(p Peer) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.nodes[p.NodeName] = nodeOf(p)
}

// get is a lister's Get.
func (f *fleet) get(name string) (*corev1.Node, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if n := f.nodes[name]; n != nil {
		return n, nil
	}
	return nil, errors.New("node not found")
}

func (f *fleet) start(t *testing.T, i int, self Peer, keys ...[]byte) {
	t.Helper()
	f.setNode(f.claim(i))
	l := &logs{}
	m, err := New(Config{
		Self: self, Keys: keys, ClusterID: "test", Verifier: NodeVerifier(f.get), Do: f.lab.Hosts[i].Do,
		Log: slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	netnstest.Must(t, err)
	t.Cleanup(func() { netnstest.Must(t, m.Shutdown()) })
	for len(f.ms) <= i {
		f.ms, f.log = append(f.ms, nil), append(f.log, nil)
	}
	f.ms[i], f.log[i] = m, l
}

// join makes all know the first.
func (f *fleet) join(t *testing.T) {
	t.Helper()
	for _, m := range f.ms {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		netnstest.Must(t, m.Join(ctx, []string{f.lab.Hosts[0].IP.String()}))
		cancel()
	}
}

func (f *fleet) sees(i int, want ...int) bool {
	var names, got []string
	for _, w := range want {
		names = append(names, fmt.Sprint("node", w))
	}
	for _, p := range f.ms[i].Alive() {
		got = append(got, p.NodeName)
	}
	return slices.Equal(names, got)
}

// await waits until node i sees these.
func (f *fleet) await(t *testing.T, i int, want ...int) time.Duration {
	t.Helper()
	start := time.Now()
	netnstest.Eventually(t, patience, fmt.Sprintf("node %d sees %v", i, want), func() bool { return f.sees(i, want...) })
	return time.Since(start)
}

func TestFleetKnowsItself(t *testing.T) {
	f := newFleet(t, 3)
	f.join(t)
	f.await(t, 0, 1, 2)
	f.await(t, 1, 0, 2)
	f.await(t, 2, 0, 1)
	if got := f.ms[2].Alive()[0]; got != f.claim(0) {
		t.Errorf("%+v, want %+v", got, f.claim(0))
	}
	// A changed claim spreads, and Changed tells.
	c := f.claim(0)
	c.AgentPort = 10999
	netnstest.Must(t, f.ms[0].UpdateMeta(c))
	for late := time.After(patience); !slices.Contains(f.ms[1].Alive(), c); {
		select {
		case <-f.ms[1].Changed():
		case <-late:
			t.Fatal("no signal of the changed claim")
		}
	}
	// Leaving is noticed at once.
	netnstest.Must(t, f.ms[2].Leave(patience))
	t.Log("leave noticed after", f.await(t, 0, 1))
	for node, lost := range map[string]bool{"node1": false, "node2": true, "never heard of": false} {
		if f.ms[0].Lost(node) != lost {
			t.Errorf("%s: lost is %v", node, !lost)
		}
	}
}

func TestWrongKeyIsRefused(t *testing.T) {
	f := newFleet(t, 2)
	f.lab.AddHost(t, 1500)
	f.start(t, 2, f.claim(2), key2)
	netnstest.Must(t, f.ms[1].Join(t.Context(), []string{f.lab.Hosts[0].IP.String()}))
	f.await(t, 0, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
	defer cancel()
	err := f.ms[2].Join(ctx, []string{f.lab.Hosts[0].IP.String()})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	t.Log(err)
	if f.ms[0].Lost("node2") || slices.Contains(f.ms[0].Reachable(), "node2") || !f.sees(2) {
		t.Fatal("it got in")
	}
	// With the right key in its ring it gets in, without a restart.
	netnstest.Must(t, f.ms[2].SetKeys([][]byte{key1, key2}))
	f.await(t, 2, 0, 1)
}

func TestKeyRotation(t *testing.T) {
	f := newFleet(t, 2)
	f.join(t)
	f.await(t, 0, 1)
	for _, keys := range [][][]byte{{key1, key2}, {key2, key1}, {key2}} {
		for _, m := range f.ms {
			netnstest.Must(t, m.SetKeys(keys))
		}
	}
	c := f.claim(0)
	c.AgentPort = 1
	netnstest.Must(t, f.ms[0].UpdateMeta(c))
	netnstest.Eventually(t, patience, "gossip under the new key", func() bool {
		a := f.ms[1].Alive()
		return len(a) == 1 && a[0].AgentPort == 1
	})
	f.lab.AddHost(t, 1500)
	f.start(t, 2, f.claim(2), key1) // the old key is out
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := f.ms[2].Join(ctx, []string{f.lab.Hosts[0].IP.String()}); err == nil {
		t.Fatal("the old key still opens")
	}
}

func TestPartitionHeals(t *testing.T) {
	f := newFleet(t, 3)
	f.join(t)
	for i, others := range [][]int{{1, 2}, {0, 2}, {0, 1}} {
		f.await(t, i, others...)
	}
	f.lab.Cut(t, 2)
	t.Log("lost host out of Alive after", f.await(t, 0, 1))
	f.await(t, 2)
	f.lab.Heal(t, 2)
	t.Log("healed after", f.await(t, 0, 1, 2))
	f.await(t, 2, 0, 1)
}

// memberlist gives a dead peer up after half a minute; we do not.
func TestLongPartitionHeals(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 45 s")
	}
	f := newFleet(t, 2)
	f.join(t)
	f.await(t, 0, 1)
	f.lab.Cut(t, 1)
	f.await(t, 0)
	netnstest.Must(t, wait(t.Context(), 35*time.Second))
	f.lab.Heal(t, 1)
	t.Log("healed after", f.await(t, 0, 1))
	f.await(t, 1, 0)
}

// wait lets the gossip's own clocks run.
func wait(ctx context.Context, d time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	<-ctx.Done()
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return nil
	}
	return ctx.Err()
}

func TestSeedThatComesLater(t *testing.T) {
	netnstest.RequireRoot(t)
	f := &fleet{lab: netnstest.NewLab(t, 2, 1500), nodes: map[string]*corev1.Node{}}
	f.start(t, 1, f.claim(1), key1)
	joined := make(chan error, 1)
	go func() { joined <- f.ms[1].Join(t.Context(), []string{f.lab.Hosts[0].IP.String()}) }()
	netnstest.Eventually(t, patience, "a first attempt", func() bool { return f.log[1].count("ailed to join") > 0 })
	f.setNode(f.claim(0))
	m, err := New(Config{
		Self: f.claim(0), Keys: [][]byte{key1}, ClusterID: "test", Verifier: NodeVerifier(f.get), Do: f.lab.Hosts[0].Do,
		Log: slog.New(slog.DiscardHandler),
	})
	netnstest.Must(t, err)
	defer func() { netnstest.Must(t, m.Shutdown()) }()
	netnstest.Must(t, <-joined)
	f.await(t, 1, 0)
}

func TestFalseClaimIsIgnoredAndToldOnce(t *testing.T) {
	f := newFleet(t, 2)
	f.lab.AddHost(t, 1500)
	liar := f.claim(2)
	liar.PodCIDR = f.claim(1).PodCIDR // wants the traffic of node1's pods
	f.start(t, 2, liar, key1)
	f.join(t)
	f.await(t, 0, 1)
	netnstest.Eventually(t, patience, "node0 hears of node2", func() bool {
		return slices.Contains(f.ms[0].Reachable(), "node2")
	})
	for range 10 {
		if slices.ContainsFunc(f.ms[0].Alive(), func(p Peer) bool { return p.NodeName == "node2" }) {
			t.Fatal("the false claim counts")
		}
	}
	if n := f.log[0].count("gossip claim ignored"); n != 1 {
		t.Fatalf("told %d times", n)
	}
	// Once it tells the truth, it counts.
	netnstest.Must(t, f.ms[2].UpdateMeta(f.claim(2)))
	f.await(t, 0, 1, 2)
}

func TestTwoAgentsWithOneName(t *testing.T) {
	f := newFleet(t, 2)
	f.join(t)
	f.await(t, 0, 1) // who comes first has the name
	f.lab.AddHost(t, 1500)
	twin := f.claim(1)
	twin.UnderlayIP = f.lab.Hosts[2].IP
	f.start(t, 2, twin, key1)
	f.join(t)
	netnstest.Eventually(t, patience, "the conflict is told", func() bool {
		return f.log[0].count("two agents gossip with one node name") > 0
	})
	if a := f.ms[0].Alive(); len(a) != 1 || a[0] != f.claim(1) {
		t.Fatalf("%+v", a)
	}
}

func TestBadConfig(t *testing.T) {
	for name, c := range map[string]Config{
		"no key":    {Self: claim("a")},
		"short key": {Self: claim("a"), Keys: [][]byte{{1, 2, 3}}},
		"no such address": {
			Self: Peer{NodeName: "a", UnderlayIP: netip.MustParseAddr("192.0.2.200")}, Keys: [][]byte{key1},
		},
	} {
		c.Log, c.Verifier = slog.New(slog.DiscardHandler), NodeVerifier(nil)
		m, err := New(c)
		if err == nil {
			_ = m.Shutdown()
			t.Errorf("%s: accepted", name)
		} else {
			t.Log(err)
		}
	}
}
