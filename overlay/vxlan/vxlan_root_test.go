package vxlan_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
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

// send is a packet of that many bytes from the pods of one host to those of another,
// whose reply has to come within wait.
func send(from *node, to, size int, wait time.Duration) error {
	return netnstest.Ping(from.Real, ipam.Gateway(podCIDR(from.i)), ipam.Gateway(podCIDR(to)), size, wait)
}

func ping(t *testing.T, from *node, to int) {
	t.Helper()
	if err := send(from, to, 84, netnstest.Patience); err != nil {
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
	if err := send(ns[0], 1, 1450, netnstest.Patience); err != nil {
		t.Fatal("the largest packet does not pass unfragmented:", err)
	}
	if err := send(ns[0], 1, 1451, netnstest.Silence); !errors.Is(err, unix.EMSGSIZE) {
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
	if err := send(ns[0], 77, 84, netnstest.Silence); err == nil {
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
	if err := send(ns[0], 2, 84, netnstest.Silence); err == nil {
		t.Fatal("a host that is no peer answered")
	}
	join(t, ns...)
	ping(t, ns[0], 2)
	ping(t, ns[2], 1)
	gone := ns[1].r.Self()
	if held := entries(t, ns[0]); held.count() != 6 || !held.names(gone) {
		t.Fatalf("%+v, want three entries for each of two peers", held)
	}
	join(t, ns[0], ns[2])
	ping(t, ns[0], 2)
	if held := entries(t, ns[0]); held.count() != 3 || held.names(gone) {
		t.Fatalf("%+v, want nothing of the host that left", held)
	}
	if err := send(ns[0], 1, 84, netnstest.Silence); err == nil {
		t.Fatal("a host that left answered")
	}
}

// held is what the kernel has for the device because of peers.
type held struct {
	Routes     []netns.Route
	Neighbours []netns.Neighbour
	FDB        []netns.FDBEntry
}

func entries(t *testing.T, n *node) held {
	t.Helper()
	index := device(t, n).Index
	var h held
	var errs [3]error
	h.Routes, errs[0] = n.Routes(index)
	h.Neighbours, errs[1] = n.Neighbours(index)
	h.FDB, errs[2] = n.FDB(index)
	netnstest.Must(t, errors.Join(errs[:]...))
	return h
}

func (h held) count() int { return len(h.Routes) + len(h.Neighbours) + len(h.FDB) }

// names tells whether any entry is about a peer.
func (h held) names(p vxlan.Peer) bool {
	return slices.ContainsFunc(h.Routes, func(r netns.Route) bool { return r.Dst == p.PodCIDR }) ||
		slices.ContainsFunc(h.Neighbours, func(n netns.Neighbour) bool { return n.MAC == p.VTEPMAC }) ||
		slices.ContainsFunc(h.FDB, func(f netns.FDBEntry) bool { return f.MAC == p.VTEPMAC || f.Remote == p.UnderlayIP })
}

// TestAdoptionChangesOnlyWhatIsWrong: after a restart what is right stays as it
// is, told by the kernel's own messages, and what belongs to no peer goes.
func TestAdoptionChangesOnlyWhatIsWrong(t *testing.T) {
	_, ns := nodes(t, 3)
	join(t, ns...)
	before, dev := entries(t, ns[0]), device(t, ns[0])
	stale := vxlan.Peer{PodCIDR: netip.MustParsePrefix("10.42.99.0/24"), VTEPMAC: netns.MAC{2, 9, 9, 9, 9, 9}, UnderlayIP: netip.MustParseAddr("10.99.0.99")}
	netnstest.Must(t, ns[0].SetNeighbour(netns.Neighbour{Link: dev.Index, IP: stale.PodCIDR.Addr(), MAC: stale.VTEPMAC}))
	netnstest.Must(t, ns[0].SetFDB(netns.FDBEntry{Link: dev.Index, MAC: stale.VTEPMAC, Remote: stale.UnderlayIP}))
	netnstest.Must(t, ns[0].SetRoute(netns.Route{
		Dst: stale.PodCIDR, Gateway: stale.PodCIDR.Addr(), Onlink: true, Link: dev.Index, Protocol: netns.ProtocolLighter,
	}))
	told := watch(t, ns[0])
	ns[0].start(t) // the peers are those on disk
	join(t, ns...)
	if after := entries(t, ns[0]); !reflect.DeepEqual(after, before) {
		t.Errorf("after the restart:\n%+v\nbefore:\n%+v", after, before)
	}
	if now := device(t, ns[0]); now != dev {
		t.Errorf("device %+v, was %+v", now, dev)
	}
	// The kernel orders its messages: when the mark is told, all before it were.
	netnstest.Output(t, ns[0].Path, "ip", "neigh", "add", "10.42.98.7", "lladdr", "02:00:00:00:00:98", "dev", "lighter.vx", "nud", "permanent")
	var lines []string
	netnstest.Eventually(t, 30*time.Second, "the mark is told", func() bool {
		lines = told()
		return strings.Contains(strings.Join(lines, "\n"), "10.42.98.7")
	})
	for _, line := range lines {
		if strings.Contains(line, "10.42.98.7") || strings.Contains(line, "10.42.99.0") || strings.Contains(line, "02:09:09:09:09:09") {
			continue
		}
		t.Errorf("something that was right was touched: %s", line)
	}
	if len(lines) < 4 {
		t.Errorf("want the three removals and the mark: %q", lines)
	}
}

// watch follows what changes in a namespace: links, addresses, routes,
// neighbours and forwarding entries, a line each.
func watch(t *testing.T, n *node) func() []string {
	t.Helper()
	out, err := os.Create(filepath.Join(t.TempDir(), "monitor"))
	netnstest.Must(t, err)
	cmd := exec.Command("nsenter", "--net="+n.Path, "ip", "-o", "monitor", "link", "address", "route", "neigh")
	cmd.Stdout = out
	netnstest.Must(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = out.Close()
	})
	all := func() []string {
		raw, err := os.ReadFile(out.Name())
		netnstest.Must(t, err)
		return strings.FieldsFunc(string(raw), func(r rune) bool { return r == '\n' })
	}
	// It listens when it tells of a first change.
	netnstest.Eventually(t, 30*time.Second, "the monitor listens", func() bool {
		netnstest.Output(t, n.Path, "ip", "neigh", "replace", "10.42.97.9", "lladdr", "02:00:00:00:00:97", "dev", "lighter.vx", "nud", "permanent")
		netnstest.Output(t, n.Path, "ip", "neigh", "del", "10.42.97.9", "dev", "lighter.vx")
		return len(all()) > 0
	})
	// A link-local IPv6 address is good a second or two after its link came up.
	return func() []string {
		return slices.DeleteFunc(all(), func(line string) bool {
			return strings.Contains(line, "10.42.97.9") || strings.Contains(line, "inet6") || strings.Contains(line, "fe80:")
		})
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
		netnstest.Eventually(t, 30*time.Second, "repaired after "+strings.Join(damage, " "), func() bool {
			return device0(ns[0]) && send(ns[0], 1, 84, netnstest.Silence) == nil
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
			if p.Ping(84, netnstest.Patience) != nil {
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
