// Package netnstest is the contract suite of netns.Kernel. It runs on the fake
// and, as root, on Linux, so that tests on the fake may be believed.
package netnstest

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"lighter.dev/lighter/overlay/netns"
)

// Suite runs the contract. newNS makes an empty namespace (loopback only) that
// the other namespaces of the same test can be joined to.
func Suite(t *testing.T, newNS func(t *testing.T) netns.Kernel) {
	t.Helper()
	for _, c := range []struct {
		name string
		run  func(t *testing.T, newNS func(t *testing.T) netns.Kernel)
	}{
		{"links", testLinks}, {"veth", testVeth}, {"ports", testPorts}, {"addresses", testAddresses},
		{"routes", testRoutes}, {"neighbours", testNeighbours}, {"fdb", testFDB}, {"macvlan", testMacvlan},
		{"sysctls", testSysctls}, {"watch", testWatch},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, newNS) })
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error %v, want %v", err, want)
	}
}

func addBridge(t *testing.T, k netns.Kernel, name string) netns.Link {
	t.Helper()
	l, err := k.AddLink(netns.Link{Name: name, Kind: netns.KindBridge, Up: true, MTU: 1400})
	must(t, err)
	return l
}

func testLinks(t *testing.T, newNS func(t *testing.T) netns.Kernel) {
	k := newNS(t)
	_, err := k.LinkByName("br0")
	wantErr(t, err, netns.ErrNotFound)
	br := addBridge(t, k, "br0")
	if !br.Up || br.MTU != 1400 || br.Kind != netns.KindBridge || br.Index == 0 {
		t.Fatalf("got %+v", br)
	}
	_, err = k.AddLink(netns.Link{Name: "br0", Kind: netns.KindBridge})
	wantErr(t, err, netns.ErrExists)
	_, err = k.AddLink(netns.Link{Name: "name-of-16-bytes", Kind: netns.KindBridge})
	wantErr(t, err, netns.ErrInvalid)
	_, err = k.AddLink(netns.Link{Name: "x", Kind: "nonsense"})
	wantErr(t, err, netns.ErrInvalid)

	mac := netns.MACFromIPv4(netip.MustParseAddr("10.42.1.1"))
	must(t, k.SetMAC(br.Index, mac))
	must(t, k.SetMTU(br.Index, 1300))
	must(t, k.SetUp(br.Index, false))
	got, err := k.LinkByName("br0")
	must(t, err)
	if got.MAC != mac || got.MTU != 1300 || got.Up {
		t.Fatalf("got %+v", got)
	}
	wantErr(t, k.SetMTU(br.Index+1000, 1300), netns.ErrNotFound)
	wantErr(t, k.SetUp(br.Index+1000, true), netns.ErrNotFound)

	vx, err := k.AddLink(netns.Link{Name: "vx.1", Kind: netns.KindVXLAN, MTU: 1450, VXLAN: netns.VXLAN{
		VNI: 1, Port: 4789, Local: netip.MustParseAddr("192.0.2.1"),
	}})
	must(t, err)
	if vx.VXLAN.VNI != 1 || vx.VXLAN.Port != 4789 || vx.VXLAN.Learning || vx.VXLAN.Local != netip.MustParseAddr("192.0.2.1") {
		t.Fatalf("got %+v", vx)
	}
	_, err = k.AddLink(netns.Link{Name: "vx.2", Kind: netns.KindVXLAN, VXLAN: netns.VXLAN{VNI: 1, Port: 4789}})
	wantErr(t, err, netns.ErrExists)

	ls, err := k.Links()
	must(t, err)
	if len(ls) != 3 { // lo, br0, vx.1
		t.Fatalf("links %+v", ls)
	}
	must(t, k.DelLink("br0"))
	wantErr(t, k.DelLink("br0"), netns.ErrNotFound)
}

func testVeth(t *testing.T, newNS func(t *testing.T) netns.Kernel) {
	host, pod := newNS(t), newNS(t)
	br := addBridge(t, host, "br0")
	mac := netns.MAC{2, 0, 0, 0, 0, 9}
	v, err := host.AddVeth(netns.Veth{
		Name: "veth1", MTU: 1400, Master: br.Index,
		Peer: netns.Peer{NS: pod, Name: "eth0", MAC: mac},
	})
	must(t, err)
	if !v.Up || v.Master != br.Index {
		t.Fatalf("host end %+v", v)
	}
	e, err := pod.LinkByName("eth0")
	must(t, err)
	if e.Up || e.MAC != mac || e.MTU != 1400 || e.Kind != netns.KindVeth {
		t.Fatalf("pod end %+v", e)
	}
	_, err = host.AddVeth(netns.Veth{Name: "veth1", Peer: netns.Peer{NS: pod, Name: "eth1"}})
	wantErr(t, err, netns.ErrExists)
	_, err = host.AddVeth(netns.Veth{Name: "veth2", Peer: netns.Peer{NS: pod, Name: "eth0"}})
	wantErr(t, err, netns.ErrExists)
	_, err = host.LinkByName("veth2")
	wantErr(t, err, netns.ErrNotFound)
	must(t, pod.DelLink("eth0"))
	_, err = host.LinkByName("veth1")
	wantErr(t, err, netns.ErrNotFound)
}

func testPorts(t *testing.T, newNS func(t *testing.T) netns.Kernel) {
	host, pod := newNS(t), newNS(t)
	br := addBridge(t, host, "br0")
	v, err := host.AddVeth(netns.Veth{Name: "veth1", Peer: netns.Peer{NS: pod, Name: "eth0"}})
	must(t, err)
	wantErr(t, host.SetBridgePort(v.Index, netns.BridgePort{Isolated: true}), netns.ErrInvalid)
	must(t, host.SetMaster(v.Index, br.Index))
	must(t, host.SetBridgePort(v.Index, netns.BridgePort{Isolated: true}))
	got, err := host.LinkByName("veth1")
	must(t, err)
	if got.Master != br.Index {
		t.Fatalf("got %+v", got)
	}
	must(t, host.SetMaster(v.Index, 0))
	must(t, host.SetMaster(v.Index, br.Index))
	must(t, host.DelLink("br0"))
	got, err = host.LinkByName("veth1")
	must(t, err)
	if got.Master != 0 {
		t.Fatalf("port of a deleted bridge: %+v", got)
	}
}

func testAddresses(t *testing.T, newNS func(t *testing.T) netns.Kernel) {
	k := newNS(t)
	br := addBridge(t, k, "br0")
	p := netip.MustParsePrefix("10.42.1.1/24")
	must(t, k.AddAddr(br.Index, p))
	wantErr(t, k.AddAddr(br.Index, p), netns.ErrExists)
	got, err := k.Addrs(br.Index)
	must(t, err)
	if !slices.Equal(got, []netip.Prefix{p}) {
		t.Fatalf("addresses %v", got)
	}
	rs, err := k.Routes(br.Index)
	must(t, err)
	if len(rs) != 1 || !rs[0].FromKernel() || rs[0].Dst != p.Masked() {
		t.Fatalf("connected route: %+v", rs)
	}
	must(t, k.DelAddr(br.Index, p))
	wantErr(t, k.DelAddr(br.Index, p), netns.ErrNotFound)
	wantErr(t, k.AddAddr(br.Index+1000, p), netns.ErrNotFound)
}

func testRoutes(t *testing.T, newNS func(t *testing.T) netns.Kernel) {
	k := newNS(t)
	br := addBridge(t, k, "br0")
	must(t, k.AddAddr(br.Index, netip.MustParsePrefix("10.42.1.0/32")))
	r := netns.Route{
		Dst: netip.MustParsePrefix("10.42.2.0/24"), Gateway: netip.MustParseAddr("10.42.2.0"),
		Link: br.Index, Protocol: netns.ProtocolLighter,
	}
	wantErr(t, k.SetRoute(r), netns.ErrUnreachable)
	r.Onlink = true
	must(t, k.SetRoute(r))
	must(t, k.SetRoute(r)) // replace
	bad := r
	bad.Src = netip.MustParseAddr("192.0.2.77")
	wantErr(t, k.SetRoute(bad), netns.ErrInvalid)
	got, err := k.Routes(br.Index)
	must(t, err)
	if !slices.Equal(got, []netns.Route{r}) {
		t.Fatalf("routes %+v, want %+v", got, r)
	}
	must(t, k.SetRoute(netns.Route{Dst: netip.MustParsePrefix("169.254.1.1/32"), Link: br.Index, Protocol: netns.ProtocolLighter}))
	must(t, k.SetRoute(netns.Route{
		Dst: netip.MustParsePrefix("0.0.0.0/0"), Link: br.Index, Protocol: netns.ProtocolLighter,
		Gateway: netip.MustParseAddr("169.254.1.1"),
	}))
	must(t, k.DelRoute(r))
	wantErr(t, k.DelRoute(r), netns.ErrNotFound)
	got, err = k.Routes(br.Index)
	must(t, err)
	if len(got) != 2 || !slices.ContainsFunc(got, func(r netns.Route) bool { return r.Dst.Bits() == 0 }) {
		t.Fatalf("routes %+v", got)
	}
	must(t, k.SetUp(br.Index, false))
	wantErr(t, k.SetRoute(r), netns.ErrUnreachable)
	got, err = k.Routes(br.Index)
	must(t, err)
	if len(got) != 0 {
		t.Fatalf("routes of a downed link: %+v", got)
	}
}

func testNeighbours(t *testing.T, newNS func(t *testing.T) netns.Kernel) {
	k := newNS(t)
	br := addBridge(t, k, "br0")
	n := netns.Neighbour{Link: br.Index, IP: netip.MustParseAddr("10.42.2.0"), MAC: netns.MAC{2, 0, 0, 0, 0, 1}}
	must(t, k.SetNeighbour(n))
	n.MAC[5] = 2
	must(t, k.SetNeighbour(n))
	got, err := k.Neighbours(br.Index)
	must(t, err)
	if !slices.Equal(got, []netns.Neighbour{n}) {
		t.Fatalf("neighbours %+v", got)
	}
	must(t, k.DelNeighbour(n))
	wantErr(t, k.DelNeighbour(n), netns.ErrNotFound)
	n.Link += 1000
	wantErr(t, k.SetNeighbour(n), netns.ErrNotFound)
}

func testFDB(t *testing.T, newNS func(t *testing.T) netns.Kernel) {
	k, pod := newNS(t), newNS(t)
	vx, err := k.AddLink(netns.Link{Name: "vx", Kind: netns.KindVXLAN, Up: true, VXLAN: netns.VXLAN{VNI: 1, Port: 4789}})
	must(t, err)
	e := netns.FDBEntry{Link: vx.Index, MAC: netns.MAC{2, 0, 0, 0, 0, 1}, Remote: netip.MustParseAddr("192.0.2.1")}
	must(t, k.SetFDB(e))
	e.Remote = netip.MustParseAddr("192.0.2.2")
	must(t, k.SetFDB(e))
	got, err := k.FDB(vx.Index)
	must(t, err)
	if !slices.Equal(got, []netns.FDBEntry{e}) {
		t.Fatalf("entries %+v", got)
	}
	must(t, k.DelFDB(e))
	wantErr(t, k.DelFDB(e), netns.ErrNotFound)

	br := addBridge(t, k, "br0")
	v, err := k.AddVeth(netns.Veth{Name: "veth1", Master: br.Index, Peer: netns.Peer{NS: pod, Name: "eth0"}})
	must(t, err)
	pin := netns.FDBEntry{Link: v.Index, MAC: netns.MAC{2, 0, 0, 0, 0, 7}}
	must(t, k.SetFDB(pin))
	must(t, k.SetFDB(pin))
	got, err = k.FDB(v.Index)
	must(t, err)
	if !slices.Equal(got, []netns.FDBEntry{pin}) {
		t.Fatalf("entries of the port %+v", got)
	}
	must(t, k.DelFDB(pin))
}

func testMacvlan(t *testing.T, newNS func(t *testing.T) netns.Kernel) {
	host, lower, pod := newNS(t), newNS(t), newNS(t)
	v, err := host.AddVeth(netns.Veth{Name: "veth1", MTU: 1400, Peer: netns.Peer{NS: lower, Name: "eth0"}})
	must(t, err)
	m := netns.Macvlan{Parent: v.Index, Peer: netns.Peer{NS: pod, Name: "eth0", MAC: netns.MAC{2, 0, 0, 0, 0, 8}}}
	must(t, host.AddMacvlan(m))
	got, err := pod.LinkByName("eth0")
	must(t, err)
	if got.Kind != netns.KindMacvlan || got.MAC != m.Peer.MAC || got.MTU != 1400 || got.Up {
		t.Fatalf("got %+v", got)
	}
	wantErr(t, host.AddMacvlan(m), netns.ErrExists)
	m.Parent, m.Peer.Name = m.Parent+1000, "eth1"
	wantErr(t, host.AddMacvlan(m), netns.ErrNotFound)
}

func testSysctls(t *testing.T, newNS func(t *testing.T) netns.Kernel) {
	k, other := newNS(t), newNS(t)
	must(t, k.SetSysctl("net/ipv4/ip_forward", "1"))
	for _, c := range []struct {
		k    netns.Kernel
		want string
	}{{k, "1"}, {other, "0"}} {
		got, err := c.k.Sysctl("net/ipv4/ip_forward")
		must(t, err)
		if got != c.want {
			t.Fatalf("ip_forward %q, want %q", got, c.want)
		}
	}
	_, err := k.AddLink(netns.Link{Name: "vx.0", Kind: netns.KindBridge})
	must(t, err)
	must(t, k.SetSysctl("net/ipv4/conf/vx.0/rp_filter", "2"))
	must(t, k.DelLink("vx.0"))
	wantErr(t, k.SetSysctl("net/ipv4/conf/vx.0/rp_filter", "2"), netns.ErrNotFound)
	_, err = k.Sysctl("net/ipv4/nonsense")
	wantErr(t, err, netns.ErrNotFound)
	_, err = k.Sysctl("net/../kernel/hostname")
	wantErr(t, err, netns.ErrInvalid)
}

func testWatch(t *testing.T, newNS func(t *testing.T) netns.Kernel) {
	k := newNS(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ch, err := k.Watch(ctx)
	must(t, err)
	addBridge(t, k, "br0")
	select {
	case <-ch:
	case <-time.After(Patience):
		t.Fatal("no signal after a link was made")
	}
	cancel()
	deadline := time.After(Patience)
	for {
		select {
		case _, open := <-ch:
			if !open {
				return
			}
		case <-deadline:
			t.Fatal("channel not closed after the context ended")
		}
	}
}
