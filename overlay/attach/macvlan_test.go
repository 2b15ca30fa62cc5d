package attach_test

import (
	"fmt"
	"net/netip"
	"testing"

	"lighter.dev/lighter/overlay/attach"
	"lighter.dev/lighter/overlay/attach/attachtest"
	"lighter.dev/lighter/overlay/ipam"
	"lighter.dev/lighter/overlay/netns"
)

// newMacvlan is the driver on eth0 of a host, with the addresses 10.99.0.66 to .78.
func newMacvlan(t *testing.T, k netns.Kernel, open func(string) (netns.Kernel, error)) (attach.Driver, *ipam.Pool) {
	t.Helper()
	pool, err := ipam.Open(ipam.Config{Dir: t.TempDir(), CIDR: netip.MustParsePrefix("10.99.0.64/27"), Log: quietLog})
	must(t, err)
	d, err := attach.NewMacvlan(attach.MacvlanConfig{
		Parent: "eth0", Subnet: netip.MustParsePrefix("10.99.0.0/24"), Gateway: netip.MustParseAddr("10.99.0.1"),
		IPAM: pool, StateDir: t.TempDir(), Log: quietLog, Kernel: k, OpenNS: open,
	})
	must(t, err)
	return d, pool
}

func TestMacvlanContractOnFake(t *testing.T) {
	attachtest.Suite(t, func(t *testing.T) attachtest.Env {
		w := netns.NewWorld()
		host := w.NS("host")
		_, err := host.AddVeth(netns.Veth{Name: "eth0", Peer: netns.Peer{NS: w.NS("switch"), Name: "port1"}})
		must(t, err)
		d, pool := newMacvlan(t, host, w.Open)
		n := 0
		return attachtest.Env{
			Driver: d, Leftovers: func(*testing.T) string { return fmt.Sprint(pool.Leases()) },
			NewNetNS: func(*testing.T) (string, func()) {
				n++
				path := fmt.Sprint("pod", n)
				w.NS(path)
				return path, func() { w.Remove(path) }
			},
		}
	})
}

func TestMacvlanRefusesPorts(t *testing.T) {
	w := netns.NewWorld()
	d, _ := newMacvlan(t, w.NS("host"), w.Open)
	w.NS("pod")
	_, err := d.Attach(t.Context(), attach.Sandbox{PodUID: "a", NetNS: "pod", Ports: []attach.Port{tcp(80, 80)}})
	if err == nil {
		t.Fatal("accepted")
	}
	t.Log(err)
}
