package vxlan

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"lighter.dev/lighter/overlay/netns"
)

func peerN(n byte) Peer {
	return Peer{
		NodeName:   string('a' + rune(n) - 1),
		PodCIDR:    netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 42, n, 0}), 24),
		VTEPMAC:    netns.MAC{2, 0, 0, 0, 0, n},
		UnderlayIP: netip.AddrFrom4([4]byte{192, 0, 2, n}),
	}
}

func stateWith(peers ...Peer) State {
	s := State{
		Exists: true,
		Device: netns.Link{
			Index: 7, Name: "vx", Kind: netns.KindVXLAN, MAC: netns.MAC{2, 1}, MTU: 1450, Up: true, Parent: 3,
			VXLAN: netns.VXLAN{VNI: 1, Port: 4789, Local: netip.MustParseAddr("192.0.2.1")},
		},
		Addrs:   []netip.Prefix{netip.MustParsePrefix("10.42.1.0/32")},
		Sysctls: map[string]string{"net/ipv4/ip_forward": "1"},
	}
	for _, p := range peers {
		s.FDB = append(s.FDB, netns.FDBEntry{MAC: p.VTEPMAC, Remote: p.UnderlayIP})
		s.Neighbours = append(s.Neighbours, netns.Neighbour{IP: p.vtep(), MAC: p.VTEPMAC})
		s.Routes = append(s.Routes, netns.Route{Dst: p.PodCIDR, Gateway: p.vtep(), Onlink: true, Protocol: netns.ProtocolLighter})
	}
	return s
}

func edit(s State, change func(*State)) State {
	change(&s)
	return s
}

func TestPlan(t *testing.T) {
	moved := peerN(2)
	moved.UnderlayIP, moved.VTEPMAC = netip.MustParseAddr("192.0.2.99"), netns.MAC{2, 9}
	for _, c := range []struct {
		name             string
		wanted, observed State
		want             []string
	}{
		{name: "nothing to do", wanted: stateWith(peerN(2)), observed: stateWith(peerN(2))},
		{
			name: "from nothing", wanted: stateWith(peerN(2)), observed: State{},
			want: []string{
				"ip link add vx address 02:01:00:00:00:00 mtu 1450 type vxlan id 1 dstport 4789 local 192.0.2.1 nolearning",
				"sysctl net/ipv4/ip_forward=1",
				"ip link set vx up",
				"ip addr add 10.42.1.0/32 dev vx",
				"bridge fdb replace 02:00:00:00:00:02 dev vx dst 192.0.2.2",
				"ip neigh replace 10.42.2.0 lladdr 02:00:00:00:00:02 dev vx",
				"ip route replace 10.42.2.0/24 via 10.42.2.0 onlink dev vx",
			},
		},
		{
			name: "peer goes: route first", wanted: stateWith(), observed: stateWith(peerN(2)),
			want: []string{
				"ip route del 10.42.2.0/24 via 10.42.2.0 onlink dev vx",
				"ip neigh del 10.42.2.0 dev vx",
				"bridge fdb del 02:00:00:00:00:02 dev vx",
			},
		},
		{
			name: "peers not heard of yet: the kernel's stay", observed: stateWith(peerN(2)),
			wanted: edit(stateWith(), func(s *State) { s.PeersUnknown = true }),
		},
		{
			name: "peer moved: replaced, its route never goes", wanted: stateWith(moved), observed: stateWith(peerN(2)),
			want: []string{
				"bridge fdb del 02:00:00:00:00:02 dev vx",
				"bridge fdb replace 02:09:00:00:00:00 dev vx dst 192.0.2.99",
				"ip neigh replace 10.42.2.0 lladdr 02:09:00:00:00:00 dev vx",
			},
		},
		{
			name: "another VNI: the device is made anew, with its peers", wanted: stateWith(peerN(2)),
			observed: edit(stateWith(peerN(2)), func(s *State) { s.Device.VXLAN.VNI = 2 }),
			want: []string{
				"ip link del vx",
				"ip link add vx address 02:01:00:00:00:00 mtu 1450 type vxlan id 1 dstport 4789 local 192.0.2.1 nolearning",
				"sysctl net/ipv4/ip_forward=1",
				"ip link set vx up",
				"ip addr add 10.42.1.0/32 dev vx",
				"bridge fdb replace 02:00:00:00:00:02 dev vx dst 192.0.2.2",
				"ip neigh replace 10.42.2.0 lladdr 02:00:00:00:00:02 dev vx",
				"ip route replace 10.42.2.0/24 via 10.42.2.0 onlink dev vx",
			},
		},
		{
			name: "what can be mended in place", wanted: stateWith(peerN(2)),
			observed: edit(stateWith(peerN(2)), func(s *State) {
				s.Device.MTU, s.Device.MAC = 1400, netns.MAC{2, 2}
				s.Addrs = []netip.Prefix{netip.MustParsePrefix("10.42.9.0/32")}
				s.Sysctls = map[string]string{"net/ipv4/ip_forward": "0"}
			}),
			want: []string{
				"ip link set vx address 02:01:00:00:00:00",
				"ip link set vx mtu 1450",
				"sysctl net/ipv4/ip_forward=1",
				"ip addr add 10.42.1.0/32 dev vx",
				"ip addr del 10.42.9.0/32 dev vx",
			},
		},
		{
			name: "the kernel's own routes are not ours", wanted: stateWith(peerN(2)),
			observed: edit(stateWith(peerN(2)), func(s *State) {
				s.Routes = append(s.Routes, netns.Route{Dst: netip.MustParsePrefix("10.42.0.0/16"), Protocol: 2})
			}),
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []string
			for _, o := range Plan(c.wanted, c.observed) {
				got = append(got, o.String())
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("got\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(c.want, "\n  "))
			}
		})
	}
}
