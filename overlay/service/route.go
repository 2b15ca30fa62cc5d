package service

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// routeProtocol (rtm_protocol of rtnetlink(7)) marks our routes. It is not the number
// that the other parts of the overlay use, because they sweep routes of theirs that
// they do not know.
const routeProtocol = 77

// ensureRoutes routes the services' networks to the device. No packet leaves by this
// route: the rewriting changes its destination first, or it is refused.
func (p *Proxy) ensureRoutes() error {
	if p.cfg.Device == "" || len(p.cfg.ServiceCIDRs) == 0 || p.routed() {
		return nil
	}
	link, err := netlink.LinkByName(p.cfg.Device)
	if err != nil {
		return fmt.Errorf("route services to %s: %w", p.cfg.Device, err)
	}
	for _, cidr := range p.cfg.ServiceCIDRs {
		route := &netlink.Route{Dst: ipNet(cidr), LinkIndex: link.Attrs().Index, Scope: netlink.SCOPE_LINK, Protocol: routeProtocol}
		if err := netlink.RouteReplace(route); err != nil {
			return fmt.Errorf("route services %s to %s: %w", cidr, p.cfg.Device, err)
		}
	}
	return nil
}

// routed tells whether all routes are there.
func (p *Proxy) routed() bool {
	ours := &netlink.Route{Protocol: routeProtocol}
	routes, err := netlink.RouteListFiltered(unix.AF_UNSPEC, ours, netlink.RT_FILTER_PROTOCOL)
	return err == nil && len(routes) == len(p.cfg.ServiceCIDRs)
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Masked().Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
