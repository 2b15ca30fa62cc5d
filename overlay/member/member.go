// Package member is the cluster's gossip (SWIM, by hashicorp/memberlist,
// encrypted): who is reachable now, and what each node claims about its VTEP.
//
// It is a source of facts for reachability, never for deletion: a peer that is
// not Alive keeps its routes until its Node object goes away.
//
//   - member.go     Members: start, snapshot, keys, stop
//   - rejoin.go     contact to seeds and lost peers, for as long as it takes
//   - peer.go       the claim and its encoding
//   - verify.go     a claim counts only if it matches the Node object
//   - delegates.go  one small type per memberlist delegate
//
// Changes are one coalesced signal (Changed) and a snapshot (Alive); nothing of
// the caller runs under memberlist's locks.
package member

import (
	"errors"
	"fmt"
	"log" //nolint:depguard // memberlist wants one; logWriter turns it into slog
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// Config of Members.
type Config struct {
	// Self is this node's claim. UnderlayIP is also where gossip listens.
	Self Peer
	// Port for gossip, UDP and TCP; 7946 when 0.
	Port int
	// Keys are AES keys of 16, 24 or 32 bytes; the first encrypts, all decrypt.
	Keys [][]byte
	// ClusterID keeps the gossip of two clusters apart that share a key by accident.
	ClusterID string
	// Verifier decides which claims count.
	Verifier Verifier
	Log      *slog.Logger
	// Do runs f where the sockets shall be born, in a network namespace that is not
	// the process's own ((*netns.Real).Do); nil means here.
	Do func(f func() error) error
}

// Members is this node's view of the cluster.
type Members struct {
	cfg     Config
	list    *memberlist.Memberlist
	net     *transport
	keyring *memberlist.Keyring
	meta    *metaDelegate
	events  *eventDelegate

	mu      sync.Mutex
	seeds   []string
	refused map[string]string // why, by node name; told once

	nudge   chan struct{} // wakes the rejoin loop
	stop    chan struct{}
	stopped sync.Once
	done    sync.WaitGroup
}

// Timings for a LAN. With these a lost host is out of Alive after 2 to 3 s: up
// to 1 s until its turn to be probed in a small cluster, 0.5 s for the probe,
// direct and by others, and 1.5 s under suspicion.
const (
	probeInterval = 500 * time.Millisecond
	probeTimeout  = 250 * time.Millisecond
	suspicionMult = 3
	streamTimeout = 3 * time.Second
	// reclaim is how long a dead node's name stays bound to its address.
	reclaim = 10 * time.Second
)

// New starts to listen; it knows nobody before Join.
func New(cfg Config) (*Members, error) {
	if cfg.Port == 0 {
		cfg.Port = 7946
	}
	if len(cfg.Keys) == 0 {
		return nil, errors.New("member: no gossip key")
	}
	meta, err := cfg.Self.encode()
	if err != nil {
		return nil, fmt.Errorf("member: %w", err)
	}
	keyring, err := memberlist.NewKeyring(cfg.Keys, cfg.Keys[0])
	if err != nil {
		return nil, fmt.Errorf("member: gossip key: %w", err)
	}
	m := &Members{
		cfg: cfg, keyring: keyring, meta: &metaDelegate{meta: meta}, refused: map[string]string{},
		events: &eventDelegate{
			self: cfg.Self.NodeName, changed: make(chan struct{}, 1),
			alive: map[string]memberlist.Node{}, seen: map[string]memberlist.Node{},
		},
		nudge: make(chan struct{}, 1), stop: make(chan struct{}),
	}
	c := m.config()
	if m.net, err = listen(c, cfg.Do); err != nil {
		return nil, fmt.Errorf("member: listen for gossip on %s port %d: %w", cfg.Self.UnderlayIP, cfg.Port, err)
	}
	c.Transport = m.net
	if m.list, err = memberlist.Create(c); err != nil {
		return nil, fmt.Errorf("member: %w", errors.Join(err, m.net.Shutdown()))
	}
	m.done.Go(m.rejoinLoop)
	return m, nil
}

func (m *Members) config() *memberlist.Config {
	c := memberlist.DefaultLANConfig()
	ip := m.cfg.Self.UnderlayIP.String()
	c.Name, c.Label = m.cfg.Self.NodeName, m.cfg.ClusterID
	c.BindAddr, c.BindPort, c.AdvertiseAddr, c.AdvertisePort = ip, m.cfg.Port, ip, m.cfg.Port
	c.Keyring = m.keyring
	c.ProbeInterval, c.ProbeTimeout, c.SuspicionMult = probeInterval, probeTimeout, suspicionMult
	c.TCPTimeout, c.DeadNodeReclaimTime = streamTimeout, reclaim
	c.EnableCompression = false // packets are small, and encrypted after
	c.Delegate, c.Events, c.Alive = m.meta, m.events, aliveDelegate{}
	c.Conflict = conflictDelegate{m.cfg.Log}
	c.Logger = log.New(logWriter{m.cfg.Log}, "", 0)
	return c
}

// Changed signals that Alive may have changed. Signals coalesce; there is one
// receiver.
func (m *Members) Changed() <-chan struct{} { return m.events.changed }

// Recheck signals Changed: to be called when Node objects changed, as claims
// are held against them.
func (m *Members) Recheck() { m.events.signal() }

// Alive is the peers that answer and whose claims count, by name, without this
// node itself.
func (m *Members) Alive() []Peer {
	m.events.mu.Lock()
	claims := make([]Peer, 0, len(m.events.alive))
	for _, n := range m.events.alive {
		if p, err := decode(n.Meta); err == nil { // aliveDelegate read it before
			claims = append(claims, p)
		}
	}
	m.events.mu.Unlock()
	slices.SortFunc(claims, func(a, b Peer) int { return strings.Compare(a.NodeName, b.NodeName) })
	return slices.DeleteFunc(claims, func(p Peer) bool { return !m.counts(p) })
}

// counts verifies a claim and tells a refusal once, until it changes.
func (m *Members) counts(p Peer) bool {
	err := m.cfg.Verifier.Verify(p)
	m.mu.Lock()
	defer m.mu.Unlock()
	if err == nil {
		delete(m.refused, p.NodeName)
		return true
	}
	if m.refused[p.NodeName] != err.Error() {
		m.refused[p.NodeName] = err.Error()
		m.cfg.Log.Warn("gossip claim ignored", "node", p.NodeName, "why", err)
	}
	return false
}

// UpdateMeta changes this node's claim and spreads it. The name stays.
func (m *Members) UpdateMeta(self Peer) error {
	if self.NodeName != m.cfg.Self.NodeName {
		return fmt.Errorf("member: node name %s cannot become %s", m.cfg.Self.NodeName, self.NodeName)
	}
	meta, err := self.encode()
	if err != nil {
		return fmt.Errorf("member: %w", err)
	}
	m.meta.set(meta)
	if err := m.list.UpdateNode(streamTimeout); err != nil {
		return fmt.Errorf("member: spread new metadata: %w", err)
	}
	return nil
}

// SetKeys replaces the keys while running. To rotate, give all nodes [old, new],
// then [new, old], then [new].
func (m *Members) SetKeys(keys [][]byte) error {
	if len(keys) == 0 {
		return errors.New("member: no gossip key")
	}
	for _, k := range keys {
		if err := m.keyring.AddKey(k); err != nil {
			return fmt.Errorf("member: gossip key: %w", err)
		}
	}
	if err := m.keyring.UseKey(keys[0]); err != nil {
		return fmt.Errorf("member: gossip key: %w", err)
	}
	for _, k := range m.keyring.GetKeys() {
		if slices.ContainsFunc(keys, func(w []byte) bool { return string(w) == string(k) }) {
			continue
		}
		if err := m.keyring.RemoveKey(k); err != nil {
			return fmt.Errorf("member: drop old gossip key: %w", err)
		}
	}
	return nil
}

// Addr is where this node's gossip listens.
func (m *Members) Addr() netip.AddrPort {
	n := m.list.LocalNode()
	ip, _ := netip.AddrFromSlice(n.Addr)
	return netip.AddrPortFrom(ip.Unmap(), n.Port)
}

// Leave tells the others that this node goes, waiting at most timeout, and
// shuts down.
func (m *Members) Leave(timeout time.Duration) error {
	err := m.list.Leave(timeout)
	m.end()
	if err := errors.Join(err, m.list.Shutdown()); err != nil {
		return fmt.Errorf("member: leave: %w", err)
	}
	return nil
}

// Shutdown stops without a word, as for a restart.
func (m *Members) Shutdown() error {
	m.end()
	if err := m.list.Shutdown(); err != nil {
		return fmt.Errorf("member: shut down: %w", err)
	}
	return nil
}

func (m *Members) end() {
	m.stopped.Do(func() {
		close(m.stop)
		m.net.cancel()
	})
	m.done.Wait()
}
