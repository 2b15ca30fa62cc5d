package netns

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func prefixOf(n *net.IPNet) netip.Prefix {
	if n == nil {
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	ones, _ := n.Mask.Size()
	return netip.PrefixFrom(addrOf(n.IP), ones)
}

// Addrs lists the addresses of a link.
func (k *Real) Addrs(link int) ([]netip.Prefix, error) {
	as, err := dump(func() ([]netlink.Addr, error) { return k.h.AddrList(byIndex(link), unix.AF_UNSPEC) })
	if err != nil {
		return nil, fmt.Errorf("list addresses of link %d: %w", link, err)
	}
	var out []netip.Prefix
	for _, a := range as {
		p := prefixOf(a.IPNet)
		if p.Addr().Is6() && p.Addr().IsLinkLocalUnicast() {
			continue
		}
		out = append(out, p)
	}
	return out, nil
}

// AddAddr adds an address.
func (k *Real) AddAddr(link int, p netip.Prefix) error {
	if err := k.h.AddrAdd(byIndex(link), &netlink.Addr{IPNet: ipNet(p)}); err != nil {
		return fmt.Errorf("add address %s to link %d: %w", p, link, wrap(err))
	}
	return nil
}

// DelAddr removes an address.
func (k *Real) DelAddr(link int, p netip.Prefix) error {
	if err := k.h.AddrDel(byIndex(link), &netlink.Addr{IPNet: ipNet(p)}); err != nil {
		return fmt.Errorf("delete address %s of link %d: %w", p, link, wrap(err))
	}
	return nil
}

// Routes lists the IPv4 unicast routes over a link.
func (k *Real) Routes(link int) ([]Route, error) {
	filter := &netlink.Route{LinkIndex: link, Table: unix.RT_TABLE_MAIN}
	rs, err := dump(func() ([]netlink.Route, error) {
		return k.h.RouteListFiltered(netlink.FAMILY_V4, filter, netlink.RT_FILTER_OIF|netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return nil, fmt.Errorf("list routes of link %d: %w", link, err)
	}
	out := make([]Route, 0, len(rs))
	for _, r := range rs {
		out = append(out, Route{
			Dst: prefixOf(r.Dst), Gateway: addrOf(r.Gw), Link: r.LinkIndex, Src: addrOf(r.Src),
			Onlink: r.Flags&int(netlink.FLAG_ONLINK) != 0, Protocol: int(r.Protocol),
		})
	}
	return out, nil
}

func toNetlinkRoute(r Route) *netlink.Route {
	out := &netlink.Route{
		Dst: ipNet(r.Dst), Gw: ipOf(r.Gateway), LinkIndex: r.Link, Src: ipOf(r.Src),
		Protocol: netlink.RouteProtocol(r.Protocol), Table: unix.RT_TABLE_MAIN,
	}
	if !r.Gateway.IsValid() {
		out.Scope = netlink.SCOPE_LINK
	}
	if r.Onlink {
		out.Flags |= int(netlink.FLAG_ONLINK)
	}
	return out
}

// SetRoute adds or replaces the route to r.Dst.
func (k *Real) SetRoute(r Route) error {
	if err := k.h.RouteReplace(toNetlinkRoute(r)); err != nil {
		return fmt.Errorf("set route %s on link %d: %w", r, r.Link, wrap(err))
	}
	return nil
}

// DelRoute removes a route.
func (k *Real) DelRoute(r Route) error {
	if err := k.h.RouteDel(toNetlinkRoute(r)); err != nil {
		return fmt.Errorf("delete route %s on link %d: %w", r, r.Link, wrap(err))
	}
	return nil
}

// Neighbours lists the permanent IPv4 entries of a link.
func (k *Real) Neighbours(link int) ([]Neighbour, error) {
	ns, err := dump(func() ([]netlink.Neigh, error) { return k.h.NeighList(link, unix.AF_INET) })
	if err != nil {
		return nil, fmt.Errorf("list neighbours of link %d: %w", link, err)
	}
	var out []Neighbour
	for _, n := range ns {
		if n.State&netlink.NUD_PERMANENT != 0 && len(n.HardwareAddr) == 6 {
			out = append(out, Neighbour{Link: n.LinkIndex, IP: addrOf(n.IP), MAC: MAC(n.HardwareAddr)})
		}
	}
	return out, nil
}

// SetNeighbour adds or replaces the entry of n.IP.
func (k *Real) SetNeighbour(n Neighbour) error {
	err := k.h.NeighSet(&netlink.Neigh{
		LinkIndex: n.Link, Family: unix.AF_INET, State: netlink.NUD_PERMANENT,
		IP: ipOf(n.IP), HardwareAddr: n.MAC.hardwareAddr(),
	})
	if err != nil {
		return fmt.Errorf("set neighbour %s %s on link %d: %w", n.IP, n.MAC, n.Link, wrap(err))
	}
	return nil
}

// DelNeighbour removes the entry of n.IP.
func (k *Real) DelNeighbour(n Neighbour) error {
	err := k.h.NeighDel(&netlink.Neigh{LinkIndex: n.Link, Family: unix.AF_INET, IP: ipOf(n.IP)})
	if err != nil {
		return fmt.Errorf("delete neighbour %s on link %d: %w", n.IP, n.Link, wrap(err))
	}
	return nil
}

// FDB lists permanent forwarding entries: those of a VXLAN device with their
// remote, those of a bridge port without (its own address is not one).
func (k *Real) FDB(link int) ([]FDBEntry, error) {
	ns, err := dump(func() ([]netlink.Neigh, error) { return k.h.NeighList(link, unix.AF_BRIDGE) })
	if err != nil {
		return nil, fmt.Errorf("list forwarding entries of link %d: %w", link, err)
	}
	var out []FDBEntry
	for _, n := range ns {
		if len(n.HardwareAddr) != 6 {
			continue
		}
		e := FDBEntry{Link: link, MAC: MAC(n.HardwareAddr), Remote: addrOf(n.IP)}
		pinned := n.State&netlink.NUD_NOARP != 0 && n.State&netlink.NUD_PERMANENT == 0 && n.Flags&netlink.NTF_MASTER != 0
		if e.Remote.IsValid() || pinned || n.MasterIndex != 0 && n.State&netlink.NUD_NOARP != 0 {
			out = append(out, e)
		}
	}
	return out, nil
}

func toNetlinkFDB(e FDBEntry) *netlink.Neigh {
	n := &netlink.Neigh{
		LinkIndex: e.Link, Family: unix.AF_BRIDGE, State: netlink.NUD_PERMANENT,
		Flags: netlink.NTF_SELF, IP: ipOf(e.Remote), HardwareAddr: e.MAC.hardwareAddr(),
	}
	if !e.Remote.IsValid() {
		// "static" in bridge(8): not local, never aged, owned by the bridge.
		n.Flags, n.State = netlink.NTF_MASTER, netlink.NUD_NOARP
	}
	return n
}

// SetFDB adds or replaces the entry of e.MAC.
func (k *Real) SetFDB(e FDBEntry) error {
	if err := k.h.NeighSet(toNetlinkFDB(e)); err != nil {
		return fmt.Errorf("set forwarding entry %s to %s on link %d: %w", e.MAC, e.Remote, e.Link, wrap(err))
	}
	return nil
}

// DelFDB removes the entry of e.MAC.
func (k *Real) DelFDB(e FDBEntry) error {
	if err := k.h.NeighDel(toNetlinkFDB(e)); err != nil {
		return fmt.Errorf("delete forwarding entry %s on link %d: %w", e.MAC, e.Link, wrap(err))
	}
	return nil
}
