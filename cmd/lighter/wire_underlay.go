package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
)

// underlay is the interface that carries traffic between hosts.
type underlay struct {
	IP        netip.Addr
	Interface string
	MTU       int // bytes
}

// findUnderlay looks up the interface that has the address nodeIP.
func findUnderlay(nodeIP netip.Addr) (underlay, error) {
	links, err := net.Interfaces()
	if err != nil {
		return underlay{}, fmt.Errorf("list network interfaces: %w", err)
	}
	for _, link := range links {
		addrs, err := link.Addrs()
		if err != nil {
			return underlay{}, fmt.Errorf("list addresses of %s: %w", link.Name, err)
		}
		for _, addr := range addrs {
			if prefix, err := netip.ParsePrefix(addr.String()); err == nil && prefix.Addr() == nodeIP {
				return underlay{IP: nodeIP, Interface: link.Name, MTU: link.MTU}, nil
			}
		}
	}
	return underlay{}, fmt.Errorf("node-ip %s is on no network interface of this host: give an address that 'ip addr' lists", nodeIP)
}

// defaultNodeIP is the address from which this host reaches server (an https
// URL), or, if server is empty, from which it reaches other networks. Nothing
// is sent: connecting a UDP socket only asks the routing table.
func defaultNodeIP(server string) (netip.Addr, error) {
	target := "192.0.2.1:9" // TEST-NET-1, RFC 5737
	if server != "" {
		u, err := url.Parse(server)
		if err != nil {
			return netip.Addr{}, fmt.Errorf("server %q: %w", server, err)
		}
		target = net.JoinHostPort(u.Hostname(), "9")
	}
	if conn, err := net.Dial("udp", target); err == nil { //nolint:noctx // sends nothing, so does not wait
		defer conn.Close()
		if addr := netip.MustParseAddrPort(conn.LocalAddr().String()).Addr().Unmap(); !addr.IsLoopback() {
			return addr, nil
		}
	}
	return firstGlobalAddress()
}

// firstGlobalAddress serves hosts without a default route.
func firstGlobalAddress() (netip.Addr, error) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return netip.Addr{}, fmt.Errorf("list addresses: %w", err)
	}
	for _, addr := range addrs {
		prefix, err := netip.ParsePrefix(addr.String())
		if err == nil && prefix.Addr().Is4() && prefix.Addr().IsGlobalUnicast() {
			return prefix.Addr(), nil
		}
	}
	return netip.Addr{}, errors.New("this host has no global IPv4 address: give one with --node-ip")
}
