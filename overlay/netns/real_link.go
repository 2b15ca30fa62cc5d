package netns

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// dump repeats a dump that the kernel says was interrupted by a change.
func dump[T any](list func() ([]T, error)) ([]T, error) {
	const attempts = 5
	var out []T
	var err error
	for range attempts {
		if out, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return out, wrap(err)
}

// byIndex is all that netlink's setters read of a link.
func byIndex(index int) netlink.Link {
	return &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: index}}
}

// Links lists all devices.
func (k *Real) Links() ([]Link, error) {
	ls, err := dump(k.h.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	out := make([]Link, 0, len(ls))
	for _, l := range ls {
		out = append(out, fromNetlink(l))
	}
	return out, nil
}

// LinkByName finds one device.
func (k *Real) LinkByName(name string) (Link, error) {
	l, err := k.h.LinkByName(name)
	if err != nil {
		return Link{}, fmt.Errorf("link %s: %w", name, wrap(err))
	}
	return fromNetlink(l), nil
}

func fromNetlink(l netlink.Link) Link {
	a := l.Attrs()
	out := Link{
		Index: a.Index, Name: a.Name, Kind: Kind(l.Type()), MTU: a.MTU,
		Up: a.Flags&net.FlagUp != 0, Master: a.MasterIndex, Parent: a.ParentIndex,
	}
	if len(a.HardwareAddr) == 6 {
		out.MAC = MAC(a.HardwareAddr)
	}
	if v, ok := l.(*netlink.Vxlan); ok {
		out.Parent = v.VtepDevIndex
		out.VXLAN = VXLAN{VNI: v.VxlanId, Port: uint16(v.Port), Learning: v.Learning, Local: addrOf(v.SrcAddr)} //nolint:gosec // a UDP port
	}
	return out
}

// addrOf is the unmapped address, invalid for nil.
func addrOf(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

func ipOf(a netip.Addr) net.IP {
	if !a.IsValid() {
		return nil
	}
	return a.AsSlice()
}

func attrs(name string, mtu int, mac MAC, up bool) netlink.LinkAttrs {
	a := netlink.NewLinkAttrs()
	a.Name, a.MTU, a.HardwareAddr = name, mtu, mac.hardwareAddr()
	if up {
		a.Flags |= net.FlagUp
	}
	return a
}

// AddLink makes a bridge or a VXLAN device.
func (k *Real) AddLink(l Link) (Link, error) {
	a := attrs(l.Name, l.MTU, l.MAC, l.Up)
	a.MasterIndex = l.Master
	var link netlink.Link
	switch l.Kind {
	case KindBridge:
		link = &netlink.Bridge{LinkAttrs: a}
	case KindVXLAN:
		link = &netlink.Vxlan{
			LinkAttrs: a, VxlanId: l.VXLAN.VNI, Port: int(l.VXLAN.Port), SrcAddr: ipOf(l.VXLAN.Local),
			VtepDevIndex: l.Parent, Learning: l.VXLAN.Learning,
		}
	default:
		return Link{}, fmt.Errorf("add link %s: kind %q: %w", l.Name, l.Kind, ErrInvalid)
	}
	if err := k.h.LinkAdd(link); err != nil {
		return Link{}, fmt.Errorf("add %s %s: %w", l.Kind, l.Name, wrap(err))
	}
	return k.LinkByName(l.Name)
}

// AddVeth makes a pair in one request; no end is ever seen in the wrong namespace.
func (k *Real) AddVeth(v Veth) (Link, error) {
	peer, ok := v.Peer.NS.(*Real)
	if !ok {
		return Link{}, fmt.Errorf("add veth %s: peer namespace is no kernel namespace: %w", v.Name, ErrInvalid)
	}
	veth := netlink.NewVeth(attrs(v.Name, v.MTU, v.MAC, true))
	veth.PeerName, veth.PeerHardwareAddr = v.Peer.Name, v.Peer.MAC.hardwareAddr()
	veth.PeerNamespace = netlink.NsFd(int(peer.file.Fd()))
	veth.MasterIndex = v.Master
	if v.MTU > 0 {
		veth.PeerMTU = uint32(v.MTU) //nolint:gosec // checked above
	}
	if err := k.h.LinkAdd(veth); err != nil {
		return Link{}, fmt.Errorf("add veth %s: %w", v.Name, wrap(err))
	}
	return Link{Index: veth.Index, Name: v.Name, Kind: KindVeth, MAC: v.MAC, MTU: v.MTU, Up: true, Master: v.Master}, nil
}

// AddMacvlan makes a macvlan in bridge mode directly in the peer's namespace.
func (k *Real) AddMacvlan(m Macvlan) error {
	peer, ok := m.Peer.NS.(*Real)
	if !ok {
		return fmt.Errorf("add macvlan %s: peer namespace is no kernel namespace: %w", m.Peer.Name, ErrInvalid)
	}
	a := attrs(m.Peer.Name, m.MTU, m.Peer.MAC, false)
	a.ParentIndex = m.Parent
	// The index is looked up after creation unless it is set; the link is not here.
	a.Namespace = netlink.NsFd(int(peer.file.Fd()))
	err := k.h.LinkAdd(&netlink.Macvlan{LinkAttrs: a, Mode: netlink.MACVLAN_MODE_BRIDGE})
	if err != nil {
		return fmt.Errorf("add macvlan %s: %w", m.Peer.Name, wrap(err))
	}
	return nil
}

// SetUp sets the administrative state.
func (k *Real) SetUp(index int, up bool) error {
	set, word := k.h.LinkSetUp, "up"
	if !up {
		set, word = k.h.LinkSetDown, "down"
	}
	if err := set(byIndex(index)); err != nil {
		return fmt.Errorf("set link %d %s: %w", index, word, wrap(err))
	}
	return nil
}

// SetMTU sets the MTU in bytes.
func (k *Real) SetMTU(index, mtu int) error {
	if err := k.h.LinkSetMTU(byIndex(index), mtu); err != nil {
		return fmt.Errorf("set MTU %d on link %d: %w", mtu, index, wrap(err))
	}
	return nil
}

// SetMAC sets the hardware address.
func (k *Real) SetMAC(index int, mac MAC) error {
	if err := k.h.LinkSetHardwareAddr(byIndex(index), mac.hardwareAddr()); err != nil {
		return fmt.Errorf("set MAC %s on link %d: %w", mac, index, wrap(err))
	}
	return nil
}

// SetMaster makes the link a port of a bridge, or of none.
func (k *Real) SetMaster(index, master int) error {
	if err := k.h.LinkSetMasterByIndex(byIndex(index), master); err != nil {
		return fmt.Errorf("set master %d on link %d: %w", master, index, wrap(err))
	}
	return nil
}

// SetBridgePort sets the switches one by one; rtnetlink in the library knows no batch.
func (k *Real) SetBridgePort(index int, p BridgePort) error {
	l := byIndex(index)
	for _, s := range []struct {
		set  func(netlink.Link, bool) error
		to   bool
		name string
	}{
		{k.h.LinkSetIsolated, p.Isolated, "isolated"},
		{k.h.LinkSetHairpin, p.Hairpin, "hairpin"},
		{k.h.LinkSetLearning, p.Learning, "learning"},
		{k.h.LinkSetFlood, p.Flood, "flood"},
	} {
		if err := s.set(l, s.to); err != nil {
			return fmt.Errorf("set bridge port %d %s=%v: %w", index, s.name, s.to, wrap(err))
		}
	}
	return nil
}

// DelLink removes a link by name.
func (k *Real) DelLink(name string) error {
	// Looking it up first turns a missing link into the contract's error.
	l, err := k.h.LinkByName(name)
	if err == nil {
		err = k.h.LinkDel(l)
	}
	if err != nil {
		return fmt.Errorf("delete link %s: %w", name, wrap(err))
	}
	return nil
}
