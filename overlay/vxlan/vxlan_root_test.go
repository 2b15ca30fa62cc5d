package vxlan_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"lighter.dev/lighter/overlay/ipam"
	"lighter.dev/lighter/overlay/netns"
	"lighter.dev/lighter/overlay/netns/netnstest"
	"lighter.dev/lighter/overlay/vxlan"
)

// node is a host of the lab with the overlay, and one address that stands for its pods.
type node struct {
	*netnstest.Host
	r   *vxlan.Reconciler
	dir string
	i   int
}

func podCIDR(i int) netip.Prefix { return netip.MustParsePrefix(fmt.Sprintf("10.42.%d.0/24", i+1)) }

func (n *node) start(t *testing.T) {
	t.Helper()
	var err error
	n.r, err = vxlan.New(vxlan.Config{
		Kernel: n.Real, NodeName: fmt.Sprint("node", n.i), UnderlayIP: n.IP, PodCIDR: podCIDR(n.i), StateDir: n.dir,
		Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	netnstest.Must(t, err)
	netnstest.Must(t, n.r.Sync(t.Context()))
}

func nodes(t *testing.T, n int) (lab *netnstest.Lab, out []*node) {
	t.Helper()
	netnstest.RequireRoot(t, "nsenter", "ip", "bridge")
	lab = netnstest.NewLab(t, n, 1500)
	for i, h := range lab.Hosts {
		nd := &node{Host: h, dir: t.TempDir(), i: i}
		nd.start(t)
		// A "pod" on loopback: the overlay does not care how pods are attached.
		netnstest.Must(t, h.AddAddr(1, netip.PrefixFrom(ipam.Gateway(podCIDR(i)), 32)))
		out = append(out, nd)
	}
	return lab, out
}

func join(t *testing.T, ns ...*node) {
	t.Helper()
	var peers []vxlan.Peer
	for _, n := range ns {
		peers = append(peers, n.r.Self())
	}
	for _, n := range ns {
		n.r.SetPeers(peers)
		netnstest.Must(t, n.r.Sync(t.Context()))
	}
}

// send is a packet of that many bytes from the pods of one host to those of another.
func send(from *node, to, size int) error {
	return netnstest.Ping(from.Real, ipam.Gateway(podCIDR(from.i)), ipam.Gateway(podCIDR(to)), size)
}

func ping(t *testing.T, from *node, to int) {
	t.Helper()
	if err := send(from, to, 84); err != nil {
		t.Fatalf("from %d to %d: %v", from.i, to, err)
	}
}

func device(t *testing.T, n *node) netns.Link {
	t.Helper()
	l, err := n.LinkByName("lighter.vx")
	netnstest.Must(t, err)
	return l
}

func TestPacketsCrossHosts(t *testing.T) {
	_, ns := nodes(t, 3)
	join(t, ns...)
	for _, from := range ns {
		for _, to := range ns {
			if from != to {
				ping(t, from, to.i)
			}
		}
	}
	if mtu := device(t, ns[0]).MTU; mtu != 1450 {
		t.Fatalf("MTU %d, want the underlay's 1500 less 50", mtu)
	}
	if err := send(ns[0], 1, 1450); err != nil {
		t.Fatal("the largest packet does not pass unfragmented:", err)
	}
	if err := send(ns[0], 1, 1451); !errors.Is(err, unix.EMSGSIZE) {
		t.Fatal("one byte more:", err)
	}
}

func TestNothingIsFloodedOrLearned(t *testing.T) {
	_, ns := nodes(t, 3)
	join(t, ns...)
	ping(t, ns[0], 1)
	dev := device(t, ns[0])
	fdb, err := ns[0].FDB(dev.Index)
	netnstest.Must(t, err)
	if len(fdb) != 2 {
		t.Fatalf("forwarding entries %+v, want those of the two peers", fdb)
	}
	if out := netnstest.Output(t, ns[0].Path, "bridge", "fdb", "show", "dev", "lighter.vx"); strings.Contains(out, "00:00:00:00:00:00") {
		t.Fatalf("there is a flood entry:\n%s", out)
	}
	// A frame to an unknown MAC leaves by no way: the underlay's counter stands still.
	netnstest.Must(t, ns[0].SetNeighbour(netns.Neighbour{
		Link: dev.Index, IP: netip.MustParseAddr("10.42.78.0"), MAC: netns.MAC{2, 7, 7, 7, 7, 7},
	}))
	netnstest.Must(t, ns[0].SetRoute(netns.Route{
		Dst: netip.MustParsePrefix("10.42.78.0/24"), Gateway: netip.MustParseAddr("10.42.78.0"), Onlink: true,
		Link: dev.Index, Protocol: netns.ProtocolLighter,
	}))
	received := func(n *node) string {
		return netnstest.Output(t, n.Path, "cat", "/proc/net/snmp")
	}
	udp := func(s string) string { return s[strings.Index(s, "\nUdp: "):strings.Index(s, "UdpLite")] }
	before := [2]string{udp(received(ns[1])), udp(received(ns[2]))}
	if err := send(ns[0], 77, 84); err == nil {
		t.Fatal("somebody answered")
	}
	if after := [2]string{udp(received(ns[1])), udp(received(ns[2]))}; after != before {
		t.Fatalf("a frame for an unknown MAC reached another host:\n%s\n%s", before, after)
	}
	// And the stale route is removed as it belongs to no peer.
	netnstest.Must(t, ns[0].r.Sync(t.Context()))
	rs, err := ns[0].Routes(dev.Index)
	netnstest.Must(t, err)
	if len(rs) != 2 {
		t.Fatalf("routes %v", rs)
	}
}

func TestPeersComeAndGo(t *testing.T) {
	_, ns := nodes(t, 3)
	join(t, ns[0], ns[1])
	ping(t, ns[0], 1)
	if err := send(ns[0], 2, 84); err == nil {
		t.Fatal("a host that is no peer answered")
	}
	join(t, ns...)
	ping(t, ns[0], 2)
	ping(t, ns[2], 1)
	join(t, ns[0], ns[2])
	ping(t, ns[0], 2)
	rs, err := ns[0].Routes(device(t, ns[0]).Index)
	netnstest.Must(t, err)
	if len(rs) != 1 {
		t.Fatalf("routes %v", rs)
	}
}

func TestRunRepairsWhatSomebodyDeletes(t *testing.T) {
	_, ns := nodes(t, 2)
	join(t, ns...)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- ns[0].r.Run(ctx) }()
	defer func() { cancel(); <-done }()
	for _, damage := range [][]string{
		{"ip", "link", "del", "lighter.vx"},
		{"ip", "route", "flush", "dev", "lighter.vx"},
		{"ip", "neigh", "flush", "dev", "lighter.vx", "nud", "permanent"},
		{"bridge", "fdb", "del", ns[1].r.Self().VTEPMAC.String(), "dev", "lighter.vx", "dst", ns[1].IP.String()},
		{"ip", "addr", "flush", "dev", "lighter.vx"},
		{"ip", "link", "set", "lighter.vx", "down"},
		{"ip", "link", "set", "lighter.vx", "address", "02:00:00:00:00:77"},
	} {
		netnstest.Output(t, ns[0].Path, damage...)
		start := time.Now()
		netnstest.Eventually(t, 5*time.Second, "repaired after "+strings.Join(damage, " "), func() bool {
			return device0(ns[0]) && send(ns[0], 1, 84) == nil
		})
		t.Logf("%-75s repaired within %s", strings.Join(damage, " "), time.Since(start).Round(time.Millisecond))
	}
}

// device0 says whether the device has its MAC and address.
func device0(n *node) bool {
	l, err := n.LinkByName("lighter.vx")
	if err != nil || l.MAC != n.r.Self().VTEPMAC || !l.Up {
		return false
	}
	as, err := n.Addrs(l.Index)
	return err == nil && len(as) == 1
}

func TestRestartDropsNoPacket(t *testing.T) {
	_, ns := nodes(t, 2)
	join(t, ns...)
	p, err := netnstest.NewPinger(ns[1].Real, netip.Addr{}, ipam.Gateway(podCIDR(0)))
	netnstest.Must(t, err)
	defer p.Close()
	stop, lost := make(chan struct{}), make(chan int)
	go func() {
		n := 0
		for {
			select {
			case <-stop:
				lost <- n
				return
			default:
			}
			if p.Ping(84, 200*time.Millisecond) != nil {
				n++
			}
		}
	}()
	index := device(t, ns[0]).Index
	for range 10 {
		ns[0].start(t) // as after a restart: the peers are those on disk
		join(t, ns...)
	}
	close(stop)
	if n := <-lost; n > 0 {
		t.Fatal(n, "packets lost")
	}
	if device(t, ns[0]).Index != index {
		t.Fatal("the device was made anew")
	}
}

func TestUnderlayMTUIsFollowed(t *testing.T) {
	_, ns := nodes(t, 2)
	join(t, ns...)
	eth, err := ns[0].LinkByName("eth0")
	netnstest.Must(t, err)
	netnstest.Must(t, ns[0].SetMTU(eth.Index, 1400))
	netnstest.Must(t, ns[0].r.Sync(t.Context()))
	if mtu := device(t, ns[0]).MTU; mtu != 1350 {
		t.Fatal(mtu)
	}
	ping(t, ns[0], 1)
}

func TestTeardownLeavesNothing(t *testing.T) {
	netnstest.RequireRoot(t)
	lab := netnstest.NewLab(t, 1, 1500)
	before, err := lab.Hosts[0].Links()
	netnstest.Must(t, err)
	n := &node{Host: lab.Hosts[0], dir: t.TempDir()}
	n.start(t)
	n.r.SetPeers([]vxlan.Peer{{NodeName: "x", PodCIDR: podCIDR(7), VTEPMAC: netns.MAC{2, 1}, UnderlayIP: netip.MustParseAddr("10.99.0.7")}})
	netnstest.Must(t, n.r.Sync(t.Context()))
	netnstest.Must(t, n.r.Teardown())
	after, err := n.Links()
	netnstest.Must(t, err)
	files, err := os.ReadDir(n.dir)
	netnstest.Must(t, err)
	if fmt.Sprint(before) != fmt.Sprint(after) || len(files) != 0 {
		t.Fatalf("left over: %v %v", after, files)
	}
}
