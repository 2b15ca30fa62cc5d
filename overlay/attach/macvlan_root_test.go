package attach_test

import (
	"fmt"
	"net/netip"
	"testing"

	"lighter.dev/lighter/overlay/attach"
	"lighter.dev/lighter/overlay/attach/attachtest"
	"lighter.dev/lighter/overlay/netns"
	"lighter.dev/lighter/overlay/netns/netnstest"
)

func openReal(path string) (netns.Kernel, error) { return netns.Open(path) }

func TestMacvlanContractOnLinux(t *testing.T) {
	netnstest.RequireRoot(t)
	attachtest.Suite(t, func(t *testing.T) attachtest.Env {
		lab := netnstest.NewLab(t, 1, 1500)
		d, pool := newMacvlan(t, lab.Hosts[0].Real, openReal)
		return attachtest.Env{
			Driver: d, NewNetNS: netnstest.RemovableNS,
			Leftovers: func(t *testing.T) string {
				links, err := lab.Hosts[0].Links()
				must(t, err)
				return fmt.Sprint(len(links), pool.Leases())
			},
		}
	})
}

func TestMacvlanPodsAreOnTheUnderlay(t *testing.T) {
	netnstest.RequireRoot(t)
	lab := netnstest.NewLab(t, 2, 1500)
	d, _ := newMacvlan(t, lab.Hosts[0].Real, openReal)
	var pods []*netns.Real
	var ips []netip.Addr
	for i := range 2 {
		s := attach.Sandbox{PodUID: fmt.Sprint(i), NetNS: netnstest.NewNS(t)}
		r, err := d.Attach(t.Context(), s)
		must(t, err)
		pods, ips = append(pods, netnstest.OpenNS(t, s.NetNS)), append(ips, r.IPs[0])
	}
	must(t, netnstest.Ping(pods[0], netip.Addr{}, lab.Hosts[1].IP, 1500, netnstest.Patience))
	must(t, netnstest.Ping(pods[0], netip.Addr{}, ips[1], 84, netnstest.Patience))
	must(t, netnstest.Ping(lab.Hosts[1].Real, netip.Addr{}, ips[0], 84, netnstest.Patience))
}
