package attach_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/knftables"

	"lighter.dev/lighter/overlay/attach"
	"lighter.dev/lighter/overlay/attach/attachtest"
	"lighter.dev/lighter/overlay/ipam"
	"lighter.dev/lighter/overlay/netns"
)

var (
	podCIDR     = netip.MustParsePrefix("10.42.1.0/24")
	clusterCIDR = netip.MustParsePrefix("10.42.0.0/16")
	quietLog    = slog.New(slog.DiscardHandler)
)

// rig is an Attacher on the fake kernel.
type rig struct {
	world *netns.World
	host  *netns.Fake
	nft   *knftables.Fake
	pool  *ipam.Pool
	dir   string
	a     *attach.Attacher
	n     int
}

func newRig(t *testing.T) *rig {
	t.Helper()
	w := netns.NewWorld()
	r := &rig{world: w, host: w.NS("host"), nft: knftables.NewFake(knftables.IPv4Family, "lighter-attach"), dir: t.TempDir()}
	r.restart(t)
	return r
}

// restart is what the agent does after a crash.
func (r *rig) restart(t *testing.T) {
	t.Helper()
	var err error
	r.pool, err = ipam.Open(ipam.Config{Dir: filepath.Join(r.dir, "ipam"), CIDR: podCIDR, Log: quietLog})
	must(t, err)
	r.a, err = attach.New(t.Context(), attach.Config{
		PodCIDR: podCIDR, ClusterCIDR: clusterCIDR, MTU: 1450, IPAM: r.pool, StateDir: r.dir, Log: quietLog,
		HostIPs: []netip.Addr{netip.MustParseAddr("192.0.2.1")},
		Kernel:  r.host, OpenNS: r.world.Open, NFT: r.nft,
	})
	must(t, err)
}

func (r *rig) sandbox(uid string, ports ...attach.Port) attach.Sandbox {
	r.n++
	path := fmt.Sprint("pod", r.n)
	r.world.NS(path)
	return attach.Sandbox{PodUID: uid, PodNamespace: "default", PodName: "web-" + uid, NetNS: path, Ports: ports}
}

// leftovers is all state of links, rules, leases and records.
func (r *rig) leftovers(t *testing.T) string {
	t.Helper()
	links, err := r.host.Links()
	must(t, err)
	var out strings.Builder
	for _, l := range links {
		ns, err := r.host.Neighbours(l.Index)
		must(t, err)
		slices.SortFunc(ns, func(a, b netns.Neighbour) int { return a.IP.Compare(b.IP) })
		_, _ = fmt.Fprintln(&out, l.Name, l.Kind, ns)
	}
	_, _ = fmt.Fprintln(&out, r.pool.Leases())
	records, err := os.ReadDir(filepath.Join(r.dir, "attached"))
	must(t, err)
	_, _ = fmt.Fprintln(&out, records, r.nft.Dump())
	return out.String()
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestContractOnFake(t *testing.T) {
	for _, kind := range []attach.Kind{attach.KindBridge, attach.KindHost, attach.KindNone} {
		t.Run(string(kind), func(t *testing.T) {
			attachtest.Suite(t, func(t *testing.T) attachtest.Env {
				r := newRig(t)
				return attachtest.Env{
					Driver: ofKind{r.a, kind}, Leftovers: r.leftovers, Stateless: kind != attach.KindBridge,
					NewNetNS: func(*testing.T) (string, func()) {
						s := r.sandbox("")
						return s.NetNS, func() { r.world.Remove(s.NetNS) }
					},
				}
			})
		})
	}
}

// ofKind asks for one kind of network.
type ofKind struct {
	attach.Driver
	kind attach.Kind
}

func (d ofKind) Attach(ctx context.Context, s attach.Sandbox) (attach.Result, error) {
	s.Network = d.kind
	return d.Driver.Attach(ctx, s)
}

func (d ofKind) Status(ctx context.Context, s attach.Sandbox) (attach.Result, error) {
	s.Network = d.kind
	return d.Driver.Status(ctx, s)
}

func tcp(host, container uint16) attach.Port {
	return attach.Port{Protocol: corev1.ProtocolTCP, HostPort: host, ContainerPort: container}
}

func TestPodEnd(t *testing.T) {
	r := newRig(t)
	s := r.sandbox("a")
	got, err := r.a.Attach(t.Context(), s)
	must(t, err)
	if len(got.IPs) != 1 || got.IPs[0] != netip.MustParseAddr("10.42.1.2") {
		t.Fatal(got)
	}
	pod := r.world.NS(s.NetNS)
	eth, err := pod.LinkByName("eth0")
	must(t, err)
	addrs, _ := pod.Addrs(eth.Index)
	routes, _ := pod.Routes(eth.Index)
	neighbours, _ := pod.Neighbours(eth.Index)
	lo, _ := pod.LinkByName("lo")
	if !lo.Up || !eth.Up || eth.MTU != 1450 || eth.MAC.String() != "0a:58:0a:2a:01:02" {
		t.Errorf("links %+v %+v", lo, eth)
	}
	if fmt.Sprint(addrs) != "[10.42.1.2/32]" || fmt.Sprint(routes) != "[10.42.1.1/32 0.0.0.0/0 via 10.42.1.1]" {
		t.Errorf("addresses %v, routes %v", addrs, routes)
	}
	if len(neighbours) != 1 || neighbours[0].MAC.String() != "0a:58:0a:2a:01:01" {
		t.Errorf("neighbours %v", neighbours)
	}
}

func TestHostNetwork(t *testing.T) {
	r := newRig(t)
	got, err := r.a.Attach(t.Context(), attach.Sandbox{PodUID: "h", PodName: "h"})
	must(t, err)
	if fmt.Sprint(got.IPs) != "[192.0.2.1]" {
		t.Fatal(got)
	}
	_, err = r.a.Attach(t.Context(), attach.Sandbox{PodUID: "h", PodName: "h", Network: "nonsense"})
	if err == nil || !strings.Contains(err.Error(), `"nonsense"`) {
		t.Fatal(err)
	}
}

func TestPortConflictNamesItsHolder(t *testing.T) {
	local := netip.MustParseAddr("127.0.0.1")
	udp := tcp(80, 80)
	udp.Protocol = corev1.ProtocolUDP
	onLocal, onOther := tcp(80, 80), tcp(80, 80)
	onLocal.HostIP, onOther.HostIP = local, netip.MustParseAddr("192.0.2.1")
	for _, c := range []struct {
		name      string
		held, new attach.Port
		conflict  bool
	}{
		{"same", tcp(80, 80), tcp(80, 8080), true},
		{"another port", tcp(80, 80), tcp(81, 80), false},
		{"another protocol", tcp(80, 80), udp, false},
		{"all addresses against one", tcp(80, 80), onLocal, true},
		{"one address against all", onLocal, tcp(80, 80), true},
		{"two addresses", onLocal, onOther, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			a, b := r.sandbox("a", c.held), r.sandbox("b", c.new)
			_, err := r.a.Attach(t.Context(), a)
			must(t, err)
			before := r.leftovers(t)
			_, err = r.a.Attach(t.Context(), b)
			conflict, ok := errors.AsType[*attach.PortConflictError](err)
			if ok != c.conflict || err != nil && !ok {
				t.Fatal(err)
			}
			if !c.conflict {
				return
			}
			if conflict.Holder != "pod default/web-a" {
				t.Error(err)
			}
			if after := r.leftovers(t); after != before {
				t.Errorf("half applied:\n%s\nbefore:\n%s", after, before)
			}
			must(t, r.a.Detach(t.Context(), a))
			_, err = r.a.Attach(t.Context(), b)
			must(t, err)
		})
	}
}

func TestBadPortsAreRefused(t *testing.T) {
	r := newRig(t)
	v6 := tcp(80, 80)
	v6.HostIP = netip.MustParseAddr("fd00::1")
	icmp := tcp(80, 80)
	icmp.Protocol = "ICMP"
	for _, ports := range [][]attach.Port{{tcp(0, 80)}, {tcp(80, 0)}, {v6}, {icmp}, {tcp(80, 80), tcp(80, 81)}} {
		before := r.leftovers(t)
		if _, err := r.a.Attach(t.Context(), r.sandbox("a", ports...)); err == nil {
			t.Errorf("%v accepted", ports)
		} else {
			t.Log(err)
		}
		if after := r.leftovers(t); after != before {
			t.Errorf("%v: left over:\n%s\nbefore:\n%s", ports, after, before)
		}
	}
}

// Every call to the kernel in turn fails: nothing may be left, and the next try succeeds.
func TestFailedAttachLeavesNothing(t *testing.T) {
	boom := errors.New("boom")
	for _, c := range []struct{ ns, method string }{
		{"host", "AddVeth"}, {"host", "SetBridgePort"}, {"host", "SetFDB"}, {"host", "SetNeighbour"},
		{"pod", "SetUp"}, {"pod", "LinkByName"}, {"pod", "AddAddr"}, {"pod", "SetNeighbour"}, {"pod", "SetRoute"},
	} {
		t.Run(c.ns+" "+c.method, func(t *testing.T) {
			r := newRig(t)
			before := r.leftovers(t)
			s := r.sandbox("a", tcp(80, 80))
			k := r.host
			if c.ns == "pod" {
				k = r.world.NS(s.NetNS)
			}
			k.FailNext(c.method, boom)
			if _, err := r.a.Attach(t.Context(), s); !errors.Is(err, boom) {
				t.Fatal(err)
			}
			if after := r.leftovers(t); after != before {
				t.Errorf("left over:\n%s\nbefore:\n%s", after, before)
			}
			_, err := r.a.Attach(t.Context(), s)
			must(t, err)
			// A mend that fails leaves the pod attached.
			k.FailNext(c.method, boom)
			_, _ = r.a.Attach(t.Context(), s)
			_, err = r.a.Status(t.Context(), s)
			must(t, err)
		})
	}
}

func TestRestartKeepsAndCleans(t *testing.T) {
	r := newRig(t)
	before := r.leftovers(t)
	a, b := r.sandbox("a", tcp(80, 8080)), r.sandbox("b")
	ra, err := r.a.Attach(t.Context(), a)
	must(t, err)
	_, err = r.a.Attach(t.Context(), b)
	must(t, err)
	attached := r.leftovers(t)
	r.restart(t)
	if now := r.leftovers(t); now != attached {
		t.Errorf("a restart changed something:\n%s\nbefore:\n%s", now, attached)
	}
	again, err := r.a.Attach(t.Context(), a)
	must(t, err)
	if again.IPs[0] != ra.IPs[0] {
		t.Error(again)
	}
	if _, err := r.a.Attach(t.Context(), r.sandbox("c", tcp(80, 80))); err == nil {
		t.Error("the port of a pod from before the restart was given away")
	}
	// Crash after the lease, before the record; and a link that nobody knows.
	_, err = r.pool.Allocate("crashed")
	must(t, err)
	_, err = r.host.AddVeth(netns.Veth{Name: "lveth0123456789", Peer: netns.Peer{NS: r.world.NS("x"), Name: "eth0"}})
	must(t, err)
	r.restart(t)
	must(t, r.a.Keep(t.Context(), []string{"a", "b"}))
	if now := r.leftovers(t); now != attached {
		t.Errorf("after Keep:\n%s\nwant:\n%s", now, attached)
	}
	must(t, r.a.Keep(t.Context(), nil))
	if now := r.leftovers(t); now != before {
		t.Errorf("after Keep of none:\n%s\nwant:\n%s", now, before)
	}
}

func TestExhaustedPoolIsAClearError(t *testing.T) {
	r := newRig(t)
	for i := range 253 {
		_, err := r.pool.Allocate(fmt.Sprint("other", i))
		must(t, err)
	}
	_, err := r.a.Attach(t.Context(), r.sandbox("a"))
	if !errors.Is(err, ipam.ErrExhausted) {
		t.Fatal(err)
	}
	t.Log(err)
}

func TestPublishedPortsAreRendered(t *testing.T) {
	r := newRig(t)
	onIP := tcp(81, 80)
	onIP.HostIP = netip.MustParseAddr("192.0.2.1")
	_, err := r.a.Attach(t.Context(), r.sandbox("a", tcp(8080, 80), onIP))
	must(t, err)
	for _, want := range []string{
		`add element ip lighter-attach hostports { tcp . 8080 comment "default/web-a" : 10.42.1.2 . 80 }`,
		`add element ip lighter-attach hostports-ip { 192.0.2.1 . tcp . 81 comment "default/web-a" : 10.42.1.2 . 80 }`,
		`add element ip lighter-attach hairpin { 10.42.1.2 . 10.42.1.2 comment "default/web-a" }`,
		`ip saddr 10.42.1.0/24 ip daddr != 10.42.0.0/16 masquerade fully-random`,
	} {
		if dump := r.nft.Dump(); !strings.Contains(dump, want) {
			t.Errorf("no %s in\n%s", want, dump)
		}
	}
}

func TestTeardownRemovesAll(t *testing.T) {
	r := newRig(t)
	_, err := r.a.Attach(t.Context(), r.sandbox("a", tcp(80, 80)))
	must(t, err)
	must(t, r.a.Teardown(t.Context()))
	links, err := r.host.Links()
	must(t, err)
	if len(links) != 1 || len(r.pool.Leases()) != 0 || strings.Contains(r.nft.Dump(), "lighter") {
		t.Fatal(links, r.pool.Leases(), r.nft.Dump())
	}
}
