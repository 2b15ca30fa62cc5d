package vxlan

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"lighter.dev/lighter/overlay/netns"
)

// State is what the kernel has, or shall have, of the overlay.
type State struct {
	// Exists is false when there is no device of that name; then the rest is empty.
	Exists bool
	Device netns.Link // Index is meaningless in a wish
	Addrs  []netip.Prefix
	// Routes, Neighbours and FDB have Link 0: they are all the device's own.
	Routes     []netns.Route
	Neighbours []netns.Neighbour
	FDB        []netns.FDBEntry
	Sysctls    map[string]string
	// PeersUnknown in a wish: this agent has not heard of any peers since it
	// started, so whatever peers the kernel has stay.
	PeersUnknown bool
}

// Op is one change to the kernel. It prints as the ip(8) or bridge(8) command
// that would do the same.
type Op struct {
	text string
	do   func(k netns.Kernel, link int) error
	// replaces the device: what was observed on the old one is gone
	creates bool
}

// String is the change for people and for tests.
func (o Op) String() string { return o.text }

// Plan says how to get from observed to wanted, in an order in which no packet
// for a peer that stays is lost and none is sent before its entries are there:
// forwarding entry, neighbour, route; removal in reverse.
func Plan(wanted, observed State) []Op {
	var ops []Op
	name := wanted.Device.Name
	if observed.Exists && !sameDevice(wanted.Device, observed.Device) {
		ops = append(ops, delDevice(name))
		observed = State{Sysctls: observed.Sysctls}
	}
	if !observed.Exists {
		ops = append(ops, addDevice(wanted.Device))
		observed.Device = wanted.Device
		observed.Device.Up = false
		observed.Sysctls = nil
	}
	ops = append(ops, planDevice(wanted, observed)...)
	if wanted.PeersUnknown {
		return ops
	}
	for _, r := range missing(observed.Routes, wanted.Routes, sameRouteKey) {
		if !r.FromKernel() {
			ops = append(ops, op("ip route del "+r.String()+" dev "+name, func(k netns.Kernel, link int) error {
				r.Link = link
				return k.DelRoute(r)
			}))
		}
	}
	for _, n := range missing(observed.Neighbours, wanted.Neighbours, sameNeighbourKey) {
		ops = append(ops, op(fmt.Sprintf("ip neigh del %s dev %s", n.IP, name), func(k netns.Kernel, link int) error {
			n.Link = link
			return k.DelNeighbour(n)
		}))
	}
	for _, e := range missing(observed.FDB, wanted.FDB, sameFDBKey) {
		ops = append(ops, op(fmt.Sprintf("bridge fdb del %s dev %s", e.MAC, name), func(k netns.Kernel, link int) error {
			e.Link = link
			return k.DelFDB(e)
		}))
	}
	return append(ops, planPeers(wanted, observed)...)
}

// planPeers adds and replaces; it never removes.
func planPeers(wanted, observed State) []Op {
	var ops []Op
	name := wanted.Device.Name
	for _, e := range missing(wanted.FDB, observed.FDB, equal) {
		ops = append(ops, op(fmt.Sprintf("bridge fdb replace %s dev %s dst %s", e.MAC, name, e.Remote), func(k netns.Kernel, link int) error {
			e.Link = link
			return k.SetFDB(e)
		}))
	}
	for _, n := range missing(wanted.Neighbours, observed.Neighbours, equal) {
		ops = append(ops, op(fmt.Sprintf("ip neigh replace %s lladdr %s dev %s", n.IP, n.MAC, name), func(k netns.Kernel, link int) error {
			n.Link = link
			return k.SetNeighbour(n)
		}))
	}
	for _, r := range missing(wanted.Routes, observed.Routes, equal) {
		ops = append(ops, op("ip route replace "+r.String()+" dev "+name, func(k netns.Kernel, link int) error {
			r.Link = link
			return k.SetRoute(r)
		}))
	}
	return ops
}

// planDevice mends what can be changed on a living device.
func planDevice(wanted, observed State) []Op {
	var ops []Op
	w, o := wanted.Device, observed.Device
	if w.MAC != o.MAC {
		ops = append(ops, op(fmt.Sprintf("ip link set %s address %s", w.Name, w.MAC), func(k netns.Kernel, link int) error {
			return k.SetMAC(link, w.MAC)
		}))
	}
	if w.MTU != o.MTU {
		ops = append(ops, op(fmt.Sprintf("ip link set %s mtu %d", w.Name, w.MTU), func(k netns.Kernel, link int) error {
			return k.SetMTU(link, w.MTU)
		}))
	}
	for _, key := range slices.Sorted(maps.Keys(wanted.Sysctls)) {
		value := wanted.Sysctls[key]
		if observed.Sysctls[key] == value {
			continue
		}
		ops = append(ops, op("sysctl "+key+"="+value, func(k netns.Kernel, _ int) error {
			err := k.SetSysctl(key, value)
			if errors.Is(err, netns.ErrNotFound) && strings.HasPrefix(key, "net/ipv6/") {
				return nil // a kernel without IPv6 has nothing to set
			}
			return err
		}))
	}
	if !o.Up {
		ops = append(ops, op(fmt.Sprintf("ip link set %s up", w.Name), func(k netns.Kernel, link int) error {
			return k.SetUp(link, true)
		}))
	}
	for _, a := range missing(wanted.Addrs, observed.Addrs, equal) {
		ops = append(ops, op(fmt.Sprintf("ip addr add %s dev %s", a, w.Name), func(k netns.Kernel, link int) error {
			return k.AddAddr(link, a)
		}))
	}
	for _, a := range missing(observed.Addrs, wanted.Addrs, equal) {
		ops = append(ops, op(fmt.Sprintf("ip addr del %s dev %s", a, w.Name), func(k netns.Kernel, link int) error {
			return k.DelAddr(link, a)
		}))
	}
	return ops
}

// sameDevice compares what cannot be changed after creation.
func sameDevice(w, o netns.Link) bool {
	return o.Kind == w.Kind && o.VXLAN == w.VXLAN && o.Parent == w.Parent
}

func addDevice(l netns.Link) Op {
	o := op(fmt.Sprintf("ip link add %s address %s mtu %d type vxlan id %d dstport %d local %s nolearning", l.Name, l.MAC, l.MTU,
		l.VXLAN.VNI, l.VXLAN.Port, l.VXLAN.Local), func(k netns.Kernel, _ int) error {
		_, err := k.AddLink(l)
		return err
	})
	o.creates = true
	return o
}

func delDevice(name string) Op {
	return op("ip link del "+name, func(k netns.Kernel, _ int) error { return k.DelLink(name) })
}

func op(text string, do func(netns.Kernel, int) error) Op { return Op{text: text, do: do} }

// missing are the elements of a that have no match in b.
func missing[T any](a, b []T, match func(x, y T) bool) []T {
	var out []T
	for _, x := range a {
		if !slices.ContainsFunc(b, func(y T) bool { return match(x, y) }) {
			out = append(out, x)
		}
	}
	return out
}

func equal[T comparable](a, b T) bool { return a == b }

func sameRouteKey(a, b netns.Route) bool         { return a.Dst == b.Dst }
func sameNeighbourKey(a, b netns.Neighbour) bool { return a.IP == b.IP }
func sameFDBKey(a, b netns.FDBEntry) bool        { return a.MAC == b.MAC }
