package attach_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"lighter.dev/lighter/overlay/attach"
	"lighter.dev/lighter/overlay/attach/attachtest"
	"lighter.dev/lighter/overlay/ipam"
	"lighter.dev/lighter/overlay/netns"
	"lighter.dev/lighter/overlay/netns/netnstest"
	"lighter.dev/lighter/overlay/vxlan"
)

// node is a host of the lab with overlay and attacher.
type node struct {
	*netnstest.Host
	i    int
	dir  string
	pool *ipam.Pool
	vx   *vxlan.Reconciler
	a    *attach.Attacher
}

// pod is an attached namespace.
type pod struct {
	*netns.Real
	attach.Sandbox
	IP netip.Addr
}

func (n *node) cidr() netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 42, byte(n.i + 1), 0}), 24)
}

func (n *node) start(t testing.TB) {
	t.Helper()
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	var err error
	n.vx, err = vxlan.New(vxlan.Config{
		Kernel: n.Real, NodeName: fmt.Sprint("node", n.i), UnderlayIP: n.Host.IP, PodCIDR: n.cidr(), StateDir: n.dir, Log: log,
	})
	must(t, err)
	must(t, n.vx.Sync(t.Context()))
	n.pool, err = ipam.Open(ipam.Config{Dir: filepath.Join(n.dir, "ipam"), CIDR: n.cidr(), Log: log})
	must(t, err)
	n.a, err = attach.New(t.Context(), attach.Config{
		PodCIDR: n.cidr(), ClusterCIDR: clusterCIDR, MTU: 1450, IPAM: n.pool, StateDir: n.dir, Log: log,
		HostIPs: []netip.Addr{n.Host.IP}, Kernel: n.Real,
	})
	must(t, err)
}

// cluster is hosts with the overlay joined, and one host outside of it.
func cluster(t testing.TB, hosts, mtu int) (ns []*node, outside *netnstest.Host) {
	t.Helper()
	netnstest.RequireRoot(t, "nft", "nsenter", "ip")
	lab := netnstest.NewLab(t, hosts+1, mtu)
	var peers []vxlan.Peer
	for i, h := range lab.Hosts[:hosts] {
		n := &node{Host: h, i: i, dir: t.TempDir()}
		n.start(t)
		ns, peers = append(ns, n), append(peers, n.vx.Self())
	}
	for _, n := range ns {
		n.vx.SetPeers(peers)
		must(t, n.vx.Sync(t.Context()))
	}
	return ns, lab.Hosts[hosts]
}

func (n *node) pod(t testing.TB, name string, ports ...attach.Port) *pod {
	t.Helper()
	p := &pod{Sandbox: attach.Sandbox{
		PodUID: "uid-" + name, PodNamespace: "default", PodName: name, NetNS: netnstest.NewNS(t), Ports: ports,
	}}
	p.Real = netnstest.OpenNS(t, p.NetNS)
	r, err := n.a.Attach(t.Context(), p.Sandbox)
	must(t, err)
	p.IP = r.IPs[0]
	return p
}

// leftovers is all that attaching leaves in a host.
func (n *node) leftovers(t *testing.T) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(n.dir, "*", "*"))
	must(t, err)
	var kept []string
	for _, f := range files {
		if filepath.Base(f) != "last" { // the rotation moves on
			kept = append(kept, f)
		}
	}
	var names []string
	links, err := n.Links()
	must(t, err)
	for _, l := range links {
		names = append(names, l.Name)
	}
	return fmt.Sprintln(kept, names) +
		netnstest.Output(t, n.Path, "nft", "-s", "list", "ruleset") +
		netnstest.Output(t, n.Path, "ip", "neigh", "show", "dev", "lighter0", "nud", "permanent") +
		netnstest.Output(t, n.Path, "ip", "-4", "route", "show", "table", "all")
}

func ask(t *testing.T, from *netns.Real, addr string) string {
	t.Helper()
	got, err := netnstest.Ask(from, addr, netnstest.Patience)
	if err != nil {
		t.Fatalf("%s to %s: %v", from, addr, err)
	}
	host, _, err := net.SplitHostPort(got)
	must(t, err)
	return host
}

func TestContractOnLinux(t *testing.T) {
	netnstest.RequireRoot(t, "nft", "nsenter", "ip")
	for _, kind := range []attach.Kind{attach.KindBridge, attach.KindHost, attach.KindNone} {
		t.Run(string(kind), func(t *testing.T) {
			attachtest.Suite(t, func(t *testing.T) attachtest.Env {
				ns, _ := cluster(t, 1, 1500)
				return attachtest.Env{
					Driver: ofKind{ns[0].a, kind}, Leftovers: ns[0].leftovers, Stateless: kind != attach.KindBridge,
					NewNetNS: netnstest.RemovableNS,
				}
			})
		})
	}
}

func TestPodsReachOneAnother(t *testing.T) {
	ns, outside := cluster(t, 3, 1500)
	var pods []*pod
	for i, n := range []*node{ns[0], ns[0], ns[1], ns[2]} {
		p := n.pod(t, fmt.Sprint("p", i))
		netnstest.Serve(t, p.Real, ":80")
		pods = append(pods, p)
	}
	for _, a := range pods {
		for _, b := range pods {
			// Never masqueraded: the server sees the pod's own address.
			if got := ask(t, a.Real, b.IP.String()+":80"); got != a.IP.String() {
				t.Errorf("%s to %s came from %s", a.IP, b.IP, got)
			}
		}
		for _, n := range ns {
			if _, err := netnstest.Ask(n.Real, a.IP.String()+":80", netnstest.Patience); err != nil {
				t.Errorf("%s to pod %s: %v", n.Host.IP, a.IP, err)
			}
		}
	}
	// The largest packet passes to another host unfragmented.
	if err := netnstest.Ping(pods[0].Real, netip.Addr{}, pods[2].IP, 1450, netnstest.Patience); err != nil {
		t.Error(err)
	}
	// Out of the cluster with the host's address.
	netnstest.Serve(t, outside.Real, ":80")
	if got := ask(t, pods[0].Real, outside.IP.String()+":80"); got != ns[0].Host.IP.String() {
		t.Errorf("left the cluster as %s, want %s", got, ns[0].Host.IP)
	}
	// Pods of one host do not see one another on the wire: all is routed.
	if out := netnstest.Output(t, pods[0].NetNS, "ip", "neigh", "show", "nud", "reachable", "nud", "stale", "nud", "delay"); out != "" {
		t.Errorf("the pod resolved neighbours:\n%s", out)
	}
}

// TestFirstPacketIsQuick: nothing between two pods has to be resolved first.
func TestFirstPacketIsQuick(t *testing.T) {
	ns, _ := cluster(t, 2, 1500)
	a, b := ns[0].pod(t, "a"), ns[1].pod(t, "b")
	start := time.Now()
	must(t, netnstest.Ping(a.Real, netip.Addr{}, b.IP, 84, netnstest.Patience))
	t.Log("first packet and reply:", time.Since(start))
	for _, hop := range []struct{ netns, device string }{
		{a.NetNS, "eth0"}, {ns[0].Path, "lighter0"}, {ns[0].Path, "lighter.vx"},
		{b.NetNS, "eth0"}, {ns[1].Path, "lighter0"}, {ns[1].Path, "lighter.vx"},
	} {
		out := netnstest.Output(t, hop.netns, "ip", "-4", "neigh", "show", "dev", hop.device,
			"nud", "incomplete", "nud", "reachable", "nud", "stale", "nud", "delay", "nud", "probe", "nud", "failed")
		if out != "" {
			t.Errorf("%s resolved neighbours:\n%s", hop.device, out)
		}
	}
}

func TestPublishedPorts(t *testing.T) {
	for name, foreign := range map[string]bool{"alone": false, "beside another bridge, with br_netfilter": true} {
		t.Run(name, func(t *testing.T) { testPublishedPorts(t, foreign) })
	}
}

func testPublishedPorts(t *testing.T, foreignBridge bool) {
	ns, outside := cluster(t, 2, 1500)
	const key = "net/bridge/bridge-nf-call-iptables"
	if foreignBridge {
		netnstest.Output(t, ns[0].Path, "ip", "link", "add", "docker0", "type", "bridge")
		err := ns[0].SetSysctl(key, "1")
		if errors.Is(err, netns.ErrNotFound) {
			t.Skip("needs the module br_netfilter")
		}
		must(t, err)
		ns[0].start(t)
		if v, _ := ns[0].Sysctl(key); v != "1" {
			t.Fatal("the switch that others count on was changed")
		}
	} else if v, err := ns[0].Sysctl(key); err == nil && v != "0" {
		t.Error("br_netfilter is on although nobody needs it")
	}
	onLoopback := tcp(8081, 80)
	onLoopback.HostIP = netip.MustParseAddr("127.0.0.1")
	onIP := tcp(8082, 80)
	onIP.HostIP = ns[0].Host.IP
	p := ns[0].pod(t, "web", tcp(8080, 80), onLoopback, onIP)
	netnstest.Serve(t, p.Real, ":80")
	other, remote := ns[0].pod(t, "other"), ns[1].pod(t, "remote")
	host := ns[0].Host.IP.String()
	for _, c := range []struct {
		name string
		from *netns.Real
		to   string
		sees string // "" for any
	}{
		{"from outside, with the client's address", outside.Real, host + ":8080", outside.IP.String()},
		{"from another host", ns[1].Real, host + ":8080", ns[1].Host.IP.String()},
		{"from the host itself", ns[0].Real, host + ":8080", ""},
		{"from the host by loopback", ns[0].Real, "127.0.0.1:8080", ""},
		{"from the host by the bridge's address", ns[0].Real, "10.42.1.1:8080", ""},
		{"from a pod of the host", other.Real, host + ":8080", other.IP.String()},
		{"from a pod of another host", remote.Real, host + ":8080", ""},
		{"from the pod itself (hairpin)", p.Real, host + ":8080", ""},
		{"on loopback only", ns[0].Real, "127.0.0.1:8081", ""},
		{"on one address", outside.Real, host + ":8082", outside.IP.String()},
	} {
		got, err := netnstest.Ask(c.from, c.to, netnstest.Patience)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		} else if c.sees != "" && !strings.HasPrefix(got, c.sees+":") {
			t.Errorf("%s: the pod sees %s, want %s", c.name, got, c.sees)
		}
	}
	for _, c := range []struct {
		name string
		from *netns.Real
		to   string
	}{
		{"loopback's port from outside", outside.Real, host + ":8081"},
		{"one address's port by loopback", ns[0].Real, "127.0.0.1:8082"},
		{"a port of another host", outside.Real, ns[1].Host.IP.String() + ":8080"},
	} {
		if got, err := netnstest.Ask(c.from, c.to, netnstest.Silence); err == nil {
			t.Errorf("%s: answered %s", c.name, got)
		}
	}
	must(t, ns[0].a.Detach(t.Context(), p.Sandbox))
	if _, err := netnstest.Ask(outside.Real, host+":8080", netnstest.Silence); err == nil {
		t.Error("the port is still published after Detach")
	}
}

// A process of the host that listens on loopback must not be reached by a pod,
// although the bridge has route_localnet (CVE-2020-8558).
func TestPodsDoNotReachTheHostsLoopback(t *testing.T) {
	ns, _ := cluster(t, 1, 1500)
	p := ns[0].pod(t, "evil")
	netnstest.Serve(t, ns[0].Real, "127.0.0.1:9999")
	// The pod routes loopback to its gateway, as an attacker with root in it would.
	must(t, p.SetSysctl("net/ipv4/conf/all/route_localnet", "1"))
	netnstest.Output(t, p.NetNS, "ip", "addr", "del", "127.0.0.1/8", "dev", "lo")
	netnstest.Output(t, p.NetNS, "ip", "route", "add", "127.0.0.1/32", "via", "10.42.1.1")
	if got, err := netnstest.Ask(p.Real, "127.0.0.1:9999", netnstest.Silence); err == nil {
		t.Fatalf("the host's loopback answered %s", got)
	}
}

// A pod cannot send with an address that is not of the pod network.
func TestSpoofedSourceIsDropped(t *testing.T) {
	ns, outside := cluster(t, 1, 1500)
	p := ns[0].pod(t, "evil")
	eth, err := p.LinkByName("eth0")
	must(t, err)
	fake := netip.MustParseAddr("10.99.0.77")
	must(t, p.AddAddr(eth.Index, netip.PrefixFrom(fake, 32)))
	if err := netnstest.Ping(p.Real, fake, outside.IP, 84, netnstest.Silence); err == nil {
		t.Fatal("answered")
	}
	must(t, netnstest.Ping(p.Real, netip.Addr{}, outside.IP, 84, netnstest.Patience))
}

func TestUDPAndSCTPPorts(t *testing.T) {
	ns, outside := cluster(t, 1, 1500)
	udp, sctp := tcp(5353, 53), tcp(5353, 53)
	udp.Protocol, sctp.Protocol = corev1.ProtocolUDP, corev1.ProtocolSCTP
	p := ns[0].pod(t, "dns", udp, sctp)
	var server net.PacketConn
	must(t, p.Do(func() (err error) {
		server, err = net.ListenPacket("udp4", ":53")
		return err
	}))
	defer func() { _ = server.Close() }()
	go func() {
		b := make([]byte, 64)
		for {
			n, from, err := server.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = server.WriteTo(b[:n], from)
		}
	}()
	must(t, outside.Do(func() error {
		c, err := net.Dial("udp4", ns[0].Host.IP.String()+":5353")
		if err != nil {
			return err
		}
		defer func() { _ = c.Close() }()
		_ = c.SetDeadline(time.Now().Add(netnstest.Patience))
		if _, err := c.Write([]byte("hello")); err != nil {
			return err
		}
		b := make([]byte, 64)
		n, err := c.Read(b)
		if err == nil && string(b[:n]) != "hello" {
			err = fmt.Errorf("got %q", b[:n])
		}
		return err
	}))
	if out := netnstest.Output(t, ns[0].Path, "nft", "list", "map", "ip", "lighter-attach", "hostports"); !strings.Contains(out, "sctp . 5353") {
		t.Error(out)
	}
}

func TestPortInUseByAProcess(t *testing.T) {
	ns, _ := cluster(t, 1, 1500)
	netnstest.Serve(t, ns[0].Real, ":7070")
	before := ns[0].leftovers(t)
	s := attach.Sandbox{PodUID: "u", PodNamespace: "default", PodName: "x", NetNS: netnstest.NewNS(t), Ports: []attach.Port{tcp(7070, 80)}}
	_, err := ns[0].a.Attach(t.Context(), s)
	if _, ok := errors.AsType[*attach.PortConflictError](err); !ok {
		t.Fatal(err)
	}
	t.Log(err)
	if after := ns[0].leftovers(t); after != before {
		t.Errorf("left over:\n%s\nbefore:\n%s", after, before)
	}
}

func TestRunRepairs(t *testing.T) {
	ns, outside := cluster(t, 1, 1500)
	p := ns[0].pod(t, "web", tcp(8080, 80))
	netnstest.Serve(t, p.Real, ":80")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- ns[0].a.Run(ctx) }()
	defer func() { cancel(); <-done }()
	for _, damage := range [][]string{
		{"ip", "link", "del", "lighter0"},
		{"ip", "link", "set", "lighter0", "down"},
	} {
		netnstest.Output(t, ns[0].Path, damage...)
		netnstest.Eventually(t, 30*time.Second, "repaired after "+strings.Join(damage, " "), func() bool {
			_, err := netnstest.Ask(outside.Real, ns[0].Host.IP.String()+":8080", netnstest.Silence)
			return err == nil
		})
	}
	// The table has no events; the next start or resync brings it back.
	netnstest.Output(t, ns[0].Path, "nft", "flush", "ruleset")
	ns[0].start(t)
	ask(t, outside.Real, ns[0].Host.IP.String()+":8080")
}

func TestConnectionsSurviveRestart(t *testing.T) {
	ns, _ := cluster(t, 2, 1500)
	a, b := ns[0].pod(t, "a", tcp(8080, 80)), ns[1].pod(t, "b")
	p, err := netnstest.NewPinger(b.Real, netip.Addr{}, a.IP)
	must(t, err)
	defer p.Close()
	stop, lost := make(chan struct{}), make(chan int)
	go func() {
		for n := 0; ; {
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
	for range 5 {
		ns[0].start(t)
		_, err := ns[0].a.Attach(t.Context(), a.Sandbox)
		must(t, err)
	}
	close(stop)
	if n := <-lost; n > 0 {
		t.Fatal(n, "packets lost")
	}
}

func TestTeardownLeavesTheHostAsItWas(t *testing.T) {
	netnstest.RequireRoot(t, "nft", "nsenter", "ip")
	lab := netnstest.NewLab(t, 1, 1500)
	n := &node{Host: lab.Hosts[0], dir: t.TempDir()}
	state := func() string {
		return netnstest.Output(t, n.Path, "nft", "list", "ruleset") + netnstest.Output(t, n.Path, "ip", "-4", "-o", "addr") +
			netnstest.Output(t, n.Path, "ip", "-4", "route", "show", "table", "all")
	}
	before := state()
	n.start(t)
	n.pod(t, "a", tcp(80, 80))
	n.pod(t, "b")
	must(t, n.a.Teardown(t.Context()))
	must(t, n.vx.Teardown())
	if after := state(); after != before {
		t.Fatalf("left over:\n%s\nbefore:\n%s", after, before)
	}
}
