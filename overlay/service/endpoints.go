package service

import (
	"cmp"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// endpoint is one address and port that serves a service port.
type endpoint struct {
	addr  netip.AddrPort
	local bool // runs on this host
}

// candidates are the endpoints of one service port by what their slice says of them.
type candidates struct {
	ready       []endpoint
	terminating []endpoint // serving, but about to go
}

// collect gathers the endpoints of the service port called portName. An address
// in two slices (a slice is being moved) counts once, and ready if one says so.
func (p proto) collect(all []*discoveryv1.EndpointSlice, portName string, protocol corev1.Protocol, node string) candidates {
	ready := map[netip.AddrPort]bool{}       // → local
	terminating := map[netip.AddrPort]bool{} // → local
	for _, slice := range all {
		port := slicePort(slice, portName, protocol)
		if port == 0 {
			continue
		}
		for i := range slice.Endpoints {
			ep := &slice.Endpoints[i]
			if len(ep.Addresses) == 0 {
				continue
			}
			// Only the first address counts: the API defines the others as unused.
			addr, err := netip.ParseAddr(ep.Addresses[0])
			if err != nil || !p.has(addr) {
				continue
			}
			at := netip.AddrPortFrom(addr, port)
			local := ep.NodeName != nil && *ep.NodeName == node
			switch cond := ep.Conditions; {
			case cond.Ready == nil || *cond.Ready:
				ready[at] = local
			case isTrue(cond.Terminating) && (cond.Serving == nil || *cond.Serving):
				terminating[at] = local
			}
		}
	}
	return candidates{ready: sorted(ready), terminating: sorted(terminating)}
}

func isTrue(b *bool) bool { return b != nil && *b }

// slicePort is the number that the slice gives to the service port; 0 if it has none.
func slicePort(slice *discoveryv1.EndpointSlice, name string, protocol corev1.Protocol) uint16 {
	for i := range slice.Ports {
		port := &slice.Ports[i]
		sameName := (port.Name == nil && name == "") || (port.Name != nil && *port.Name == name)
		sameProtocol := port.Protocol == nil && protocol == corev1.ProtocolTCP || port.Protocol != nil && *port.Protocol == protocol
		if sameName && sameProtocol && port.Port != nil {
			return uint16(*port.Port)
		}
	}
	return 0
}

func sorted(set map[netip.AddrPort]bool) []endpoint {
	if len(set) == 0 {
		return nil
	}
	list := make([]endpoint, 0, len(set))
	for addr, local := range set {
		list = append(list, endpoint{addr: addr, local: local})
	}
	slices.SortFunc(list, func(a, b endpoint) int {
		return cmp.Or(a.addr.Addr().Compare(b.addr.Addr()), cmp.Compare(a.addr.Port(), b.addr.Port()))
	})
	return list
}

// cluster are the endpoints that traffic may go to wherever they run: the ready
// ones, and if there is none, those that still serve while they terminate (KEP-1669).
func (c candidates) cluster() []endpoint {
	if len(c.ready) > 0 {
		return c.ready
	}
	return c.terminating
}

// local is cluster for the policy Local: only endpoints on this host.
func (c candidates) local() []endpoint {
	isRemote := func(ep endpoint) bool { return !ep.local }
	if ready := slices.DeleteFunc(slices.Clone(c.ready), isRemote); len(ready) > 0 {
		return ready
	}
	return slices.DeleteFunc(slices.Clone(c.terminating), isRemote)
}
