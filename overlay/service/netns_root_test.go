package service

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// needRoot skips what needs the real kernel where it is out of reach.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root for network namespaces")
	}
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("needs the program nft (package nftables)")
	}
}

// enterNetns moves the test into a network namespace of its own. The thread is never
// unlocked, so it and the namespace end with the test's goroutine.
func enterNetns(t *testing.T) {
	t.Helper()
	needRoot(t)
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatalf("unshare the network namespace: %v", err)
	}
}

// netns is a network namespace in which functions can be run.
type netns struct {
	t  *testing.T
	fd int
}

func newNetns(t *testing.T) *netns {
	t.Helper()
	n := &netns{t: t}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			n.fd, err = unix.Open(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatalf("new network namespace: %v", err)
	}
	t.Cleanup(func() { _ = unix.Close(n.fd) })
	n.do(func() error { return up("lo") })
	return n
}

// start runs f in the namespace and returns where its result will come.
func (n *netns) start(f func() error) <-chan error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if err := unix.Setns(n.fd, unix.CLONE_NEWNET); err != nil {
			done <- err
			return
		}
		done <- f()
	}()
	return done
}

// do runs f in the namespace; an error ends the test.
func (n *netns) do(f func() error) {
	n.t.Helper()
	if err := <-n.start(f); err != nil {
		n.t.Fatal(err)
	}
}

func up(name string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return netlink.LinkSetUp(link)
}

func addAddress(name, cidr string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	addr, err := netlink.ParseAddr(cidr)
	if err != nil {
		return err
	}
	if err := netlink.AddrAdd(link, addr); err != nil {
		return fmt.Errorf("address %s: %w", cidr, err)
	}
	return netlink.LinkSetUp(link)
}

func defaultRoute(via string) error {
	return netlink.RouteAdd(&netlink.Route{Gw: net.ParseIP(via)})
}

// lab is one host with pods on a bridge and a machine outside.
type lab struct {
	t       *testing.T
	host    *netns
	outside *netns
	pods    map[string]*netns // by address
}

const (
	hostOutside = "192.0.2.1" // the host's address on the outer network
	hostBridge  = "10.42.1.1"
	outsider    = "192.0.2.2"
)

func newLab(t *testing.T, pods ...string) *lab {
	t.Helper()
	needRoot(t)
	l := &lab{t: t, host: newNetns(t), outside: newNetns(t), pods: map[string]*netns{}}
	l.host.do(func() error {
		if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644); err != nil {
			return err
		}
		// Where br_netfilter is loaded, DNAT on the bridge would make it forward from port
		// to port, and the ports are isolated; overlay/attach switches it off as well.
		err := os.WriteFile("/proc/sys/net/bridge/bridge-nf-call-iptables", []byte("0"), 0o644)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br"}}); err != nil {
			return err
		}
		return addAddress("br", hostBridge+"/24")
	})
	l.plug(l.outside, "out", "", hostOutside+"/24", outsider+"/24", hostOutside)
	l.host.do(func() error { return defaultRoute(outsider) })
	for _, pod := range pods {
		l.addPod(pod)
	}
	return l
}

func (l *lab) addPod(addr string) *netns {
	l.t.Helper()
	pod := newNetns(l.t)
	l.pods[addr] = pod
	l.plug(pod, "p"+strings.ReplaceAll(addr, ".", ""), "br", "", addr+"/32", hostBridge)
	return pod
}

// plug connects a namespace to the host by a veth pair, at a bridge or with an address.
func (l *lab) plug(n *netns, name, bridge, hostCIDR, cidr, gateway string) {
	l.t.Helper()
	l.host.do(func() error {
		veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: "eth0", PeerNamespace: netlink.NsFd(n.fd)}
		if err := netlink.LinkAdd(veth); err != nil {
			return err
		}
		if hostCIDR != "" {
			return addAddress(name, hostCIDR)
		}
		master, err := netlink.LinkByName(bridge)
		if err != nil {
			return err
		}
		if err := netlink.LinkSetMaster(veth, master); err != nil {
			return err
		}
		if err := netlink.LinkSetIsolated(veth, true); err != nil {
			return err
		}
		return up(name)
	})
	n.do(func() error {
		if err := addAddress("eth0", cidr); err != nil {
			return err
		}
		if strings.HasSuffix(cidr, "/32") {
			// As overlay/attach does it: everything goes through the host.
			eth, err := netlink.LinkByName("eth0")
			if err != nil {
				return err
			}
			gw := &net.IPNet{IP: net.ParseIP(gateway), Mask: net.CIDRMask(32, 32)}
			if err := netlink.RouteAdd(&netlink.Route{Dst: gw, LinkIndex: eth.Attrs().Index, Scope: netlink.SCOPE_LINK}); err != nil {
				return err
			}
		}
		return defaultRoute(gateway)
	})
}

// addrPort makes "address:port".
func addrPort(addr string, port uint16) string {
	return netip.AddrPortFrom(netip.MustParseAddr(addr), port).String()
}
