package member

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"sync"

	"github.com/hashicorp/memberlist"
)

// metaDelegate serves this node's claim. memberlist's other user messages are not used.
type metaDelegate struct {
	mu   sync.Mutex
	meta []byte
}

var _ memberlist.Delegate = (*metaDelegate)(nil)

func (d *metaDelegate) set(meta []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.meta = meta
}

func (d *metaDelegate) NodeMeta(limit int) []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.meta[:min(limit, len(d.meta))]
}

func (*metaDelegate) NotifyMsg([]byte)                {}
func (*metaDelegate) GetBroadcasts(_, _ int) [][]byte { return nil }
func (*metaDelegate) LocalState(bool) []byte          { return nil }
func (*metaDelegate) MergeRemoteState([]byte, bool)   {}

// eventDelegate keeps a copy of who is there. memberlist calls it under its own
// lock, so it only copies and signals; all work is done by who reads.
type eventDelegate struct {
	self    string
	changed chan struct{}

	mu    sync.Mutex
	alive map[string]memberlist.Node
	seen  map[string]memberlist.Node // all that were ever alive, as last heard of
}

var _ memberlist.EventDelegate = (*eventDelegate)(nil)

func (d *eventDelegate) NotifyJoin(n *memberlist.Node)   { d.put(n) }
func (d *eventDelegate) NotifyUpdate(n *memberlist.Node) { d.put(n) }

func (d *eventDelegate) NotifyLeave(n *memberlist.Node) {
	d.mu.Lock()
	delete(d.alive, n.Name)
	d.mu.Unlock()
	d.signal()
}

func (d *eventDelegate) put(n *memberlist.Node) {
	if n.Name == d.self {
		return
	}
	node := *n
	node.Meta = bytes.Clone(n.Meta)
	d.mu.Lock()
	d.alive[n.Name], d.seen[n.Name] = node, node
	d.mu.Unlock()
	d.signal()
}

// census is the addresses of the living, and the nodes that were alive once.
func (d *eventDelegate) census() (here map[string]bool, lost []memberlist.Node) {
	d.mu.Lock()
	defer d.mu.Unlock()
	here = map[string]bool{}
	for _, n := range d.alive {
		here[n.Address()] = true
	}
	for name, n := range d.seen {
		if _, ok := d.alive[name]; !ok {
			lost = append(lost, n)
		}
	}
	return here, lost
}

func (d *eventDelegate) signal() {
	select {
	case d.changed <- struct{}{}:
	default:
	}
}

// aliveDelegate turns away members that speak another language or for somebody else.
type aliveDelegate struct{}

var _ memberlist.AliveDelegate = aliveDelegate{}

func (aliveDelegate) NotifyAlive(n *memberlist.Node) error {
	p, err := decode(n.Meta)
	if err != nil {
		return err
	}
	if p.NodeName != n.Name {
		return fmt.Errorf("it claims to be node %q", p.NodeName)
	}
	return nil
}

// conflictDelegate reports two agents with one name.
type conflictDelegate struct{ log *slog.Logger }

var _ memberlist.ConflictDelegate = conflictDelegate{}

func (d conflictDelegate) NotifyConflict(existing, other *memberlist.Node) {
	d.log.Error("two agents gossip with one node name; give one of them another",
		"node", existing.Name, "address", existing.Address(), "other", other.Address())
}

// logWriter passes memberlist's log lines ("[WARN] memberlist: …") on, one level
// lower than it rates them: a lost peer is news here, not a fault.
type logWriter struct{ log *slog.Logger }

func (w logWriter) Write(line []byte) (int, error) {
	level := slog.LevelDebug
	switch {
	case bytes.HasPrefix(line, []byte("[ERR]")):
		level = slog.LevelWarn
	case bytes.HasPrefix(line, []byte("[WARN]")):
		level = slog.LevelInfo
	}
	_, text, _ := bytes.Cut(line, []byte("] "))
	w.log.Log(context.Background(), level, string(bytes.TrimSpace(text)))
	return len(line), nil
}
