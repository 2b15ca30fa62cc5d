package service

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"sigs.k8s.io/knftables"
)

// udpFrontends is where UDP services are reached and which endpoints serve them.
// A UDP flow has no end: conntrack keeps sending a client that never pauses to the
// endpoint (or the nowhere) that its first packet was given, so such flows are
// deleted when that endpoint is gone, and the next packet chooses again.
type udpFrontends struct {
	byAddr     map[netip.AddrPort]map[netip.AddrPort]bool
	byNodePort map[uint16]map[netip.AddrPort]bool
}

// udpOf reads the UDP services out of a table.
func udpOf(t *Table) udpFrontends {
	u := udpFrontends{byAddr: map[netip.AddrPort]map[netip.AddrPort]bool{}, byNodePort: map[uint16]map[netip.AddrPort]bool{}}
	for key, value := range t.Sets[mapEndpoints].Elements {
		part := strings.Split(key, " . ")
		if addr, err := netip.ParseAddr(part[0]); err == nil && part[1] == "udp" {
			insert(u.byAddr, netip.AddrPortFrom(addr, parsePort(part[2])), value)
		}
	}
	for key, value := range t.Sets[mapNodePortEndpoints].Elements {
		if part := strings.Split(key, " . "); part[0] == "udp" {
			insert(u.byNodePort, parsePort(part[1]), value)
		}
	}
	return u
}

func insert[K comparable](m map[K]map[netip.AddrPort]bool, key K, value string) {
	ip, port, _ := strings.Cut(value, " . ")
	addr, err := netip.ParseAddr(ip)
	if err != nil {
		return
	}
	if m[key] == nil {
		m[key] = map[netip.AddrPort]bool{}
	}
	m[key][netip.AddrPortFrom(addr, parsePort(port))] = true
}

func parsePort(s string) uint16 {
	n, _ := strconv.ParseUint(s, 10, 16)
	return uint16(n)
}

// changedUDP are the UDP frontends whose endpoints differ between two tables; those
// that lost their last endpoint are in it with none. Empty means nothing to clean.
func changedUDP(old, wanted *Table) udpFrontends {
	before, after := udpOf(old), udpOf(wanted)
	return udpFrontends{
		byAddr:     changed(before.byAddr, after.byAddr),
		byNodePort: changed(before.byNodePort, after.byNodePort),
	}
}

func changed[K comparable](before, after map[K]map[netip.AddrPort]bool) map[K]map[netip.AddrPort]bool {
	diff := map[K]map[netip.AddrPort]bool{}
	for key, targets := range after {
		if !sameKeys(before[key], targets) {
			diff[key] = targets
		}
	}
	for key := range before {
		if _, ok := after[key]; !ok {
			diff[key] = nil
		}
	}
	return diff
}

func sameKeys(a, b map[netip.AddrPort]bool) bool {
	if len(a) != len(b) {
		return false
	}
	for key := range a {
		if !b[key] {
			return false
		}
	}
	return true
}

// MatchConntrackFlow tells whether a flow goes to one of u's frontends but to none
// of its endpoints. It makes u a filter for netlink.ConntrackDeleteFilters.
func (u udpFrontends) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool {
	if flow.Forward.Protocol != unix.IPPROTO_UDP {
		return false
	}
	to, ok1 := netip.AddrFromSlice(flow.Forward.DstIP)
	from, ok2 := netip.AddrFromSlice(flow.Reverse.SrcIP)
	if !ok1 || !ok2 {
		return false
	}
	server := netip.AddrPortFrom(from.Unmap(), flow.Reverse.SrcPort)
	if targets, ok := u.byAddr[netip.AddrPortFrom(to.Unmap(), flow.Forward.DstPort)]; ok {
		return !targets[server]
	}
	// The node port's flows are known by their rewriting: a flow that was not
	// rewritten may belong to a program of the host that has the same port.
	if targets, ok := u.byNodePort[flow.Forward.DstPort]; ok && from.Unmap() != to.Unmap() {
		return !targets[server]
	}
	return false
}

// cleanConntrack deletes the UDP flows that the change from old to wanted made stale.
func cleanConntrack(old, wanted *Table) (uint, error) {
	stale := changedUDP(old, wanted)
	if len(stale.byAddr)+len(stale.byNodePort) == 0 {
		return 0, nil
	}
	family := netlink.InetFamily(unix.AF_INET)
	if wanted.Family == knftables.IPv6Family {
		family = unix.AF_INET6
	}
	deleted, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, family, stale)
	if err != nil {
		return deleted, fmt.Errorf("delete stale UDP flows: %w", err)
	}
	return deleted, nil
}
