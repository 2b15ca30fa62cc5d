package netns

import (
	"crypto/rand"
	"fmt"
	"slices"
	"strings"
)

// nameMax is IFNAMSIZ without the terminating zero.
const nameMax = 15

func (f *Fake) byName(name string) *fakeLink {
	for _, l := range f.links {
		if l.Name == name {
			return l
		}
	}
	return nil
}

// checkNew refuses what Linux refuses about a new link.
func (f *Fake) checkNew(name string, mtu int) error {
	switch {
	case name == "" || len(name) > nameMax || name == "." || name == ".." || strings.ContainsAny(name, "/: \t\n"):
		return fmt.Errorf("link name %q: %w", name, ErrInvalid)
	case f.byName(name) != nil:
		return fmt.Errorf("link %s: %w", name, ErrExists)
	case mtu < 0 || mtu > 65535:
		return fmt.Errorf("link %s: MTU %d: %w", name, mtu, ErrInvalid)
	}
	return nil
}

func (f *Fake) insert(l Link) *fakeLink {
	if l.Index == 0 {
		f.w.nextIndex = max(f.w.nextIndex, 1) + 1
		l.Index = f.w.nextIndex
	}
	if l.MTU == 0 {
		l.MTU = 1500
	}
	if l.MAC.IsZero() {
		_, _ = rand.Read(l.MAC[:])
		l.MAC[0] = l.MAC[0]&^1 | 2 // unicast, locally administered
	}
	fl := &fakeLink{Link: l, port: BridgePort{Learning: true, Flood: true}}
	f.links[l.Index] = fl
	f.devconf(l.Name, "0")
	f.changed()
	return fl
}

// Links lists all devices by index.
func (f *Fake) Links() ([]Link, error) {
	unlock, err := f.begin("Links")
	if err != nil {
		return nil, err
	}
	defer unlock()
	var out []Link
	for _, l := range f.links {
		out = append(out, l.Link)
	}
	slices.SortFunc(out, func(a, b Link) int { return a.Index - b.Index })
	return out, nil
}

// LinkByName finds one device.
func (f *Fake) LinkByName(name string) (Link, error) {
	unlock, err := f.begin("LinkByName")
	if err != nil {
		return Link{}, err
	}
	defer unlock()
	l := f.byName(name)
	if l == nil {
		return Link{}, fmt.Errorf("link %s: %w", name, ErrNotFound)
	}
	return l.Link, nil
}

// AddLink makes a bridge or a VXLAN device.
func (f *Fake) AddLink(l Link) (Link, error) {
	unlock, err := f.begin("AddLink")
	if err != nil {
		return Link{}, err
	}
	defer unlock()
	if err := f.checkNew(l.Name, l.MTU); err != nil {
		return Link{}, err
	}
	switch l.Kind {
	case KindBridge:
	case KindVXLAN:
		for _, o := range f.links {
			if o.Kind == KindVXLAN && o.VXLAN.VNI == l.VXLAN.VNI && o.VXLAN.Port == l.VXLAN.Port {
				return Link{}, fmt.Errorf("link %s: VNI %d port %d: %w", l.Name, l.VXLAN.VNI, l.VXLAN.Port, ErrExists)
			}
		}
	default:
		return Link{}, fmt.Errorf("add link %s: kind %q: %w", l.Name, l.Kind, ErrInvalid)
	}
	if l.Parent != 0 && f.links[l.Parent] == nil {
		return Link{}, fmt.Errorf("link %s: parent %d: %w", l.Name, l.Parent, ErrNotFound)
	}
	l.Index = 0
	return f.insert(l).Link, nil
}

// AddVeth makes a pair over two namespaces of this world.
func (f *Fake) AddVeth(v Veth) (Link, error) {
	peerNS, ok := v.Peer.NS.(*Fake)
	if !ok || peerNS.w != f.w {
		return Link{}, fmt.Errorf("add veth %s: peer namespace is of another kernel: %w", v.Name, ErrInvalid)
	}
	unlock, err := f.begin("AddVeth")
	if err != nil {
		return Link{}, err
	}
	defer unlock()
	if err := f.checkNew(v.Name, v.MTU); err != nil {
		return Link{}, err
	}
	if err := peerNS.checkNew(v.Peer.Name, v.MTU); err != nil {
		return Link{}, err
	}
	if err := f.checkMaster(v.Master); err != nil {
		return Link{}, err
	}
	near := f.insert(Link{Name: v.Name, Kind: KindVeth, MAC: v.MAC, MTU: v.MTU, Up: true, Master: v.Master})
	far := peerNS.insert(Link{Name: v.Peer.Name, Kind: KindVeth, MAC: v.Peer.MAC, MTU: v.MTU})
	near.peerNS, near.peer, near.Parent = peerNS, far.Index, far.Index
	far.peerNS, far.peer, far.Parent = f, near.Index, near.Index
	return near.Link, nil
}

// AddMacvlan makes a macvlan in the peer's namespace.
func (f *Fake) AddMacvlan(m Macvlan) error {
	peerNS, ok := m.Peer.NS.(*Fake)
	if !ok || peerNS.w != f.w {
		return fmt.Errorf("add macvlan %s: peer namespace is of another kernel: %w", m.Peer.Name, ErrInvalid)
	}
	unlock, err := f.begin("AddMacvlan")
	if err != nil {
		return err
	}
	defer unlock()
	parent := f.links[m.Parent]
	if parent == nil {
		return fmt.Errorf("add macvlan %s: parent %d: %w", m.Peer.Name, m.Parent, ErrNotFound)
	}
	if err := peerNS.checkNew(m.Peer.Name, m.MTU); err != nil {
		return err
	}
	mtu := m.MTU
	if mtu == 0 {
		mtu = parent.MTU
	}
	if mtu > parent.MTU {
		return fmt.Errorf("add macvlan %s: MTU %d above the parent's: %w", m.Peer.Name, mtu, ErrInvalid)
	}
	peerNS.insert(Link{Name: m.Peer.Name, Kind: KindMacvlan, MAC: m.Peer.MAC, MTU: mtu, Parent: m.Parent})
	return nil
}

func (f *Fake) checkMaster(master int) error {
	if master == 0 {
		return nil
	}
	if m := f.links[master]; m == nil || m.Kind != KindBridge {
		return fmt.Errorf("master %d is no bridge: %w", master, ErrInvalid)
	}
	return nil
}

// change runs set on a link that must exist.
func (f *Fake) change(method string, index int, set func(*fakeLink) error) error {
	unlock, err := f.begin(method)
	if err != nil {
		return err
	}
	defer unlock()
	l := f.links[index]
	if l == nil {
		return fmt.Errorf("%s: link %d: %w", method, index, ErrNotFound)
	}
	if err := set(l); err != nil {
		return fmt.Errorf("%s: link %s: %w", method, l.Name, err)
	}
	f.changed()
	return nil
}

// SetUp sets the administrative state. Down drops routes and neighbours, as in
// Linux; up brings the connected routes back.
func (f *Fake) SetUp(index int, up bool) error {
	return f.change("SetUp", index, func(l *fakeLink) error {
		if l.Up == up {
			return nil
		}
		l.Up = up
		l.routes, l.neighbours = nil, nil
		if up {
			for _, p := range l.addrs {
				l.connect(p)
			}
		}
		return nil
	})
}

// SetMTU sets the MTU.
func (f *Fake) SetMTU(index, mtu int) error {
	return f.change("SetMTU", index, func(l *fakeLink) error {
		if mtu < 68 || mtu > 65535 {
			return fmt.Errorf("MTU %d: %w", mtu, ErrInvalid)
		}
		l.MTU = mtu
		return nil
	})
}

// SetMAC sets the hardware address.
func (f *Fake) SetMAC(index int, mac MAC) error {
	return f.change("SetMAC", index, func(l *fakeLink) error {
		if mac.IsZero() || mac[0]&1 != 0 {
			return fmt.Errorf("MAC %s is no unicast address: %w", mac, ErrInvalid)
		}
		l.MAC = mac
		return nil
	})
}

// SetMaster makes the link a port.
func (f *Fake) SetMaster(index, master int) error {
	return f.change("SetMaster", index, func(l *fakeLink) error {
		if err := f.checkMaster(master); err != nil {
			return err
		}
		if l.Master != master {
			l.Master, l.port = master, BridgePort{Learning: true, Flood: true}
		}
		return nil
	})
}

// SetBridgePort sets the switches of a port.
func (f *Fake) SetBridgePort(index int, p BridgePort) error {
	return f.change("SetBridgePort", index, func(l *fakeLink) error {
		if l.Master == 0 {
			return fmt.Errorf("no bridge port: %w", ErrInvalid)
		}
		l.port = p
		return nil
	})
}

// DelLink removes a link and what hangs on it.
func (f *Fake) DelLink(name string) error {
	unlock, err := f.begin("DelLink")
	if err != nil {
		return err
	}
	defer unlock()
	l := f.byName(name)
	if l == nil {
		return fmt.Errorf("delete link %s: %w", name, ErrNotFound)
	}
	if l.Index == 1 {
		return fmt.Errorf("delete link %s: %w", name, ErrInvalid)
	}
	f.remove(l)
	return nil
}

func (f *Fake) remove(l *fakeLink) {
	delete(f.links, l.Index)
	f.dropDevconf(l.Name)
	for _, o := range f.links {
		if o.Master == l.Index {
			o.Master = 0
		}
		if o.Kind == KindVXLAN && o.Parent == l.Index {
			f.remove(o)
		}
	}
	f.changed()
	if l.peerNS != nil {
		if peer := l.peerNS.links[l.peer]; peer != nil && peer.peerNS == f {
			peer.peerNS = nil
			l.peerNS.remove(peer)
		}
	}
}
