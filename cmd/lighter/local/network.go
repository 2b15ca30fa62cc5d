package local

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The switch is a bridge in a network namespace of its own: there the packet
// filter of the machine (Docker's, for one, drops what it does not know) has no
// say, and one unpin removes bridge, ports and cuts at once.
const (
	switchName = "switch" // the pin's and the bridge's name
	uplinkPort = "uplink" // the switch's port to the machine
	hostLink   = "eth0"   // a host's own interface

	nftLimit = 10 * time.Second // it needs milliseconds
)

// ensureSwitch makes the switch and the machine's link to it, as far as they
// are missing.
func (c *Cluster) ensureSwitch() error {
	pin := c.pin(switchName, "net")
	if _, ok := pinnedInode(pin); !ok {
		if err := newNamespaces(unix.CLONE_NEWNET, map[string]string{"net": pin}, func() error { return nil }); err != nil {
			return fmt.Errorf("make the switch: %w", err)
		}
	}
	if err := inNet(pin, ensureBridge); err != nil {
		return fmt.Errorf("make the switch: %w", err)
	}
	if err := c.ensureUplink(pin); err != nil {
		return fmt.Errorf("link the machine to the switch: %w", err)
	}
	return c.applyCuts()
}

func ensureBridge() error {
	err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: switchName}})
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	return linkUp(switchName)
}

func (c *Cluster) ensureUplink(switchPin string) error {
	if _, err := netlink.LinkByName(c.uplink()); err != nil {
		if err := addVeth(c.uplink(), uplinkPort, switchPin, nil); err != nil {
			return err
		}
	}
	if err := inNet(switchPin, func() error { return joinBridge(uplinkPort) }); err != nil {
		return err
	}
	if err := addAddress(c.uplink(), netip.PrefixFrom(c.Gateway(), c.Subnet.Bits())); err != nil {
		return err
	}
	return linkUp(c.uplink())
}

// plugIn gives a host its interface: a fresh veth between switch and host.
func (c *Cluster) plugIn(host Host) error {
	err := inNet(c.pin(switchName, "net"), func() error {
		if err := deleteLink(host.Name); err != nil {
			return err
		}
		if err := addVeth(host.Name, hostLink, c.pin(host.Name, "net"), stableMAC(host.IP)); err != nil {
			return err
		}
		return joinBridge(host.Name)
	})
	if err != nil {
		return fmt.Errorf("link %s to the switch: %w", host.Name, err)
	}
	return inNet(c.pin(host.Name, "net"), func() error { return c.configureHostLink(host) })
}

func (c *Cluster) configureHostLink(host Host) error {
	if err := linkUp("lo"); err != nil {
		return err
	}
	if err := addAddress(hostLink, netip.PrefixFrom(host.IP, c.Subnet.Bits())); err != nil {
		return err
	}
	if err := linkUp(hostLink); err != nil {
		return err
	}
	if err := netlink.RouteReplace(&netlink.Route{Gw: c.Gateway().AsSlice()}); err != nil {
		return fmt.Errorf("default route of %s: %w", host.Name, err)
	}
	return nil
}

// unplug removes a host's veth at once. Left to the kernel it would go with the
// host's network namespace, but some time later.
func (c *Cluster) unplug(host string) error {
	pin := c.pin(switchName, "net")
	if _, ok := pinnedInode(pin); !ok {
		return nil
	}
	return inNet(pin, func() error { return deleteLink(host) })
}

// removeSwitch takes away the machine's link and the switch with all ports.
func (c *Cluster) removeSwitch() error {
	return errors.Join(deleteLink(c.uplink()), unpin(c.pin(switchName, "net")))
}

// applyCuts replaces the switch's packet filter by one that drops what the cuts
// say (nft(8), family bridge).
func (c *Cluster) applyCuts() error {
	return inNet(c.pin(switchName, "net"), func() error {
		ctx, cancel := context.WithTimeout(context.Background(), nftLimit)
		defer cancel()
		nft := exec.CommandContext(ctx, "nft", "-f", "-")
		nft.Stdin = strings.NewReader(cutRules(c.Cuts))
		if output, err := nft.CombinedOutput(); err != nil {
			return fmt.Errorf("nft: %w: %s (is nftables installed?)", err, strings.TrimSpace(string(output)))
		}
		return nil
	})
}

// cutRules renders cuts as an nft script that is applied in one transaction.
func cutRules(cuts []Cut) string {
	// Declared first, so that deleting works the first time too.
	script := "table bridge cuts\ndelete table bridge cuts\n"
	if len(cuts) == 0 {
		return script
	}
	script += "table bridge cuts {\n\tchain forward {\n\t\ttype filter hook forward priority 0; policy accept;\n"
	for _, cut := range cuts {
		if cut.B == "" {
			script += fmt.Sprintf("\t\tiifname %q drop\n\t\toifname %q drop\n", cut.A, cut.A)
			continue
		}
		script += fmt.Sprintf("\t\tiifname %q oifname %q drop\n\t\tiifname %q oifname %q drop\n", cut.A, cut.B, cut.B, cut.A)
	}
	return script + "\t}\n}\n"
}

// addVeth makes a pair: name here, peer in the namespace that peerPin pins.
func addVeth(name, peer, peerPin string, peerMAC net.HardwareAddr) error {
	ns, err := os.Open(peerPin)
	if err != nil {
		return err
	}
	defer ns.Close()
	veth := netlink.NewVeth(netlink.LinkAttrs{Name: name})
	veth.PeerName, veth.PeerNamespace, veth.PeerHardwareAddr = peer, netlink.NsFd(int(ns.Fd())), peerMAC
	if err := netlink.LinkAdd(veth); err != nil {
		return fmt.Errorf("make veth %s: %w", name, err)
	}
	return nil
}

func joinBridge(port string) error {
	bridge, err := netlink.LinkByName(switchName)
	if err != nil {
		return err
	}
	link, err := netlink.LinkByName(port)
	if err != nil {
		return err
	}
	if err := netlink.LinkSetMaster(link, bridge); err != nil {
		return err
	}
	return netlink.LinkSetUp(link)
}

func linkUp(name string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return netlink.LinkSetUp(link)
}

func addAddress(name string, prefix netip.Prefix) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: prefix.Addr().AsSlice(), Mask: net.CIDRMask(prefix.Bits(), 32)}}
	return netlink.AddrReplace(link, addr)
}

// deleteLink removes a link; none of that name is fine.
func deleteLink(name string) error {
	link, err := netlink.LinkByName(name)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil
	} else if err != nil {
		return err
	}
	return netlink.LinkDel(link)
}

// stableMAC derives a locally administered address from an IP, so that the
// neighbours' ARP entries stay right when a host comes back.
func stableMAC(ip netip.Addr) net.HardwareAddr {
	b := ip.As4()
	return net.HardwareAddr{0x02, 0x4c, b[0], b[1], b[2], b[3]}
}

// takenPrefixes are the destinations that this machine has routes for, without
// the default route.
func takenPrefixes() ([]netip.Prefix, error) {
	routes, err := netlink.RouteList(nil, unix.AF_INET)
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	var taken []netip.Prefix
	for _, route := range routes {
		if route.Dst == nil {
			continue
		}
		ones, _ := route.Dst.Mask.Size()
		if addr, ok := netip.AddrFromSlice(route.Dst.IP.To4()); ok && ones > 0 {
			taken = append(taken, netip.PrefixFrom(addr, ones))
		}
	}
	return taken, nil
}
