package attach

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"

	corev1 "k8s.io/api/core/v1"

	"lighter.dev/lighter/overlay/netns"
)

// Status looks whether record, both ends, address and routes are there.
func (b *bridge) Status(_ context.Context, s Sandbox) (Result, error) {
	rec, ok := b.records.get(s.PodUID)
	missing := func(what string) (Result, error) {
		return Result{}, fmt.Errorf("pod %s/%s: %s: %w", s.PodNamespace, s.PodName, what, ErrNotAttached)
	}
	if !ok {
		return missing("no record")
	}
	near, err := b.cfg.Kernel.LinkByName(vethName(s.PodUID))
	if err != nil || near.Master == 0 {
		return missing("no link on the host")
	}
	pod, err := b.cfg.OpenNS(rec.Sandbox.NetNS)
	if err != nil {
		return missing("no namespace")
	}
	defer func() { _ = pod.Close() }()
	eth, err := pod.LinkByName(podLink)
	if err != nil || !eth.Up {
		return missing("no link in the namespace")
	}
	addrs, err := pod.Addrs(eth.Index)
	if err != nil || !slices.Contains(addrs, netip.PrefixFrom(rec.IP, 32)) {
		return missing("no address")
	}
	routes, err := pod.Routes(eth.Index)
	if err != nil || len(routes) < len(b.podRoutes(eth.Index)) {
		return missing("no routes")
	}
	return Result{IPs: []netip.Addr{rec.IP}}, nil
}

// Keep detaches the pods that are not in the list, by record or by lease, and
// then removes host ends that nobody knows.
func (b *bridge) Keep(ctx context.Context, podUIDs []string) error {
	keep := make(map[string]bool, len(podUIDs))
	for _, uid := range podUIDs {
		keep[uid] = true
	}
	stale := map[string]bool{}
	for _, r := range b.records.list() {
		stale[r.Sandbox.PodUID] = !keep[r.Sandbox.PodUID]
	}
	for _, l := range b.cfg.IPAM.Leases() {
		stale[l.PodUID] = !keep[l.PodUID]
	}
	var errs []error
	for uid, gone := range stale {
		if !gone {
			continue
		}
		rec, _ := b.records.get(uid)
		b.cfg.Log.Info("detach a pod that is no more", "uid", uid, "pod", rec.Sandbox.PodNamespace+"/"+rec.Sandbox.PodName)
		rec.Sandbox.PodUID = uid
		errs = append(errs, b.Detach(ctx, rec.Sandbox))
	}
	if err := errors.Join(append(errs, b.sweepLinks(keep))...); err != nil {
		return fmt.Errorf("attach: remove leftovers: %w", err)
	}
	return nil
}

// sweepLinks removes host ends without a pod. A pod that is being attached has
// a record before it has a link.
func (b *bridge) sweepLinks(keep map[string]bool) error {
	links, err := b.cfg.Kernel.Links()
	if err != nil {
		return err
	}
	known := map[string]bool{}
	for uid := range keep {
		known[vethName(uid)] = true
	}
	for _, r := range b.records.list() {
		known[vethName(r.Sandbox.PodUID)] = true
	}
	var errs []error
	for _, l := range links {
		if l.Kind == netns.KindVeth && strings.HasPrefix(l.Name, vethPrefix) && !known[l.Name] {
			b.cfg.Log.Info("remove a link that belongs to no pod", "link", l.Name)
			errs = append(errs, ignoreMissing(b.cfg.Kernel.DelLink(l.Name)))
		}
	}
	return errors.Join(errs...)
}

// probePorts refuses ports that a process of the host listens on: published,
// they would cut that process off. Ports that the pod has already are fine.
func (b *bridge) probePorts(ports, had []Port) error {
	inside, ok := b.cfg.Kernel.(interface{ Do(f func() error) error })
	if !ok || len(ports) == 0 {
		return nil
	}
	return inside.Do(func() error {
		for _, p := range ports {
			if slices.Contains(had, p) {
				continue
			}
			if errors.Is(tryListen(p), syscall.EADDRINUSE) {
				return &PortConflictError{Port: p, Holder: "another process on the host"}
			}
		}
		return nil
	})
}

// tryListen binds and gives the port back at once. Protocols that package net
// does not know are not probed.
func tryListen(p Port) error {
	ip := p.HostIP
	if p.anyIP() {
		ip = netip.IPv4Unspecified()
	}
	addr := netip.AddrPortFrom(ip.Unmap(), p.HostPort)
	switch p.proto() {
	case corev1.ProtocolTCP:
		l, err := net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(addr))
		if err == nil {
			err = l.Close()
		}
		return err
	case corev1.ProtocolUDP:
		l, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(addr))
		if err == nil {
			err = l.Close()
		}
		return err
	}
	return nil
}
