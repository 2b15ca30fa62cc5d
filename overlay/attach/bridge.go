package attach

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"

	"lighter.dev/lighter/overlay/ipam"
	"lighter.dev/lighter/overlay/netns"
)

// loopbackIndex is the same in every namespace.
const loopbackIndex = 1

// podLink is the name of the pod's end.
const podLink = "eth0"

// vethPrefix marks host ends as ours, for Keep.
const vethPrefix = "lveth"

// vethName is the host's end for a pod; it fits IFNAMSIZ.
func vethName(podUID string) string {
	sum := sha256.Sum256([]byte(podUID))
	return vethPrefix + hex.EncodeToString(sum[:5])
}

// bridge is the driver of KindBridge.
type bridge struct {
	cfg     Config
	gateway netip.Addr
	records *records
	rules   *rules
	pods    keyedMutex // one operation per pod at a time
	base    sync.Mutex // the bridge itself
	// netfilter is what ensureBridgeNetfilter found.
	netfilter atomic.Bool
}

var _ Driver = (*bridge)(nil)

func newBridge(cfg Config, rs *records) *bridge {
	return &bridge{cfg: cfg, gateway: ipam.Gateway(cfg.PodCIDR), records: rs, rules: &rules{cfg: cfg}}
}

// Attach connects the sandbox. What exists already is checked and kept.
func (b *bridge) Attach(ctx context.Context, s Sandbox) (Result, error) {
	fail := func(err error) (Result, error) {
		return Result{}, fmt.Errorf("attach pod %s/%s: %w", s.PodNamespace, s.PodName, err)
	}
	for _, p := range s.Ports {
		if err := p.check(); err != nil {
			return fail(err)
		}
	}
	defer b.pods.lock(s.PodUID)()
	_, again := b.records.get(s.PodUID)
	pod, err := b.cfg.OpenNS(s.NetNS)
	if err != nil {
		return fail(err)
	}
	defer func() { _ = pod.Close() }()
	ip, err := b.reserve(s)
	if err == nil {
		err = b.connect(ctx, s, ip, pod)
	}
	if err != nil {
		if !again { // a mend that failed leaves the pod what it had
			err = errors.Join(err, b.detach(ctx, s.PodUID))
		}
		return fail(err)
	}
	return Result{IPs: []netip.Addr{ip}}, nil
}

// reserve takes the address and the ports.
func (b *bridge) reserve(s Sandbox) (netip.Addr, error) {
	ip, err := b.cfg.IPAM.Allocate(s.PodUID)
	if err != nil {
		return ip, err
	}
	old, _ := b.records.get(s.PodUID)
	if err := b.probePorts(s.Ports, old.Sandbox.Ports); err != nil {
		return ip, err
	}
	return ip, b.records.put(record{Sandbox: s, IP: ip})
}

// connect makes the link, both ends and the published ports.
func (b *bridge) connect(ctx context.Context, s Sandbox, ip netip.Addr, pod netns.Kernel) error {
	br, err := b.cfg.Kernel.LinkByName(b.cfg.Bridge)
	if errors.Is(err, netns.ErrNotFound) {
		if err = b.ensure(ctx); err == nil {
			br, err = b.cfg.Kernel.LinkByName(b.cfg.Bridge)
		}
	}
	if err != nil {
		return err
	}
	veth, err := b.ensureVeth(s.PodUID, ip, br, pod)
	if err != nil {
		return err
	}
	if err := b.ensurePort(veth, br, ip); err != nil {
		return err
	}
	if err := b.ensurePodEnd(pod, ip, br); err != nil {
		return err
	}
	if err := b.settleCarrier(pod, veth.Name); err != nil {
		return err
	}
	if len(s.Ports) == 0 {
		return nil
	}
	return b.rules.sync(ctx, b.records.list(), false)
}

// settleCarrier asks for the links on the way of the first packet. The kernel
// handles a carrier that came up in a work queue, some milliseconds later, and
// drops packets until then; since Linux 6.8 a question (RTM_GETLINK) has it done
// first.
func (b *bridge) settleCarrier(pod netns.Kernel, veth string) error {
	_, podErr := pod.LinkByName(podLink)
	_, vethErr := b.cfg.Kernel.LinkByName(veth)
	_, bridgeErr := b.cfg.Kernel.LinkByName(b.cfg.Bridge)
	return errors.Join(podErr, vethErr, bridgeErr)
}

// ensureVeth makes the pair, or takes the one that is there if it is whole.
func (b *bridge) ensureVeth(uid string, ip netip.Addr, br netns.Link, pod netns.Kernel) (netns.Link, error) {
	v := netns.Veth{
		Name: vethName(uid), MTU: b.cfg.MTU, Master: br.Index,
		Peer: netns.Peer{NS: pod, Name: podLink, MAC: netns.MACFromIPv4(ip)},
	}
	l, err := b.cfg.Kernel.AddVeth(v)
	if !errors.Is(err, netns.ErrExists) {
		return l, err
	}
	near, nearErr := b.cfg.Kernel.LinkByName(v.Name)
	far, farErr := pod.LinkByName(podLink)
	if nearErr == nil && farErr == nil && far.Kind == netns.KindVeth && far.MAC == v.Peer.MAC {
		return near, nil
	}
	if nearErr != nil && farErr == nil {
		return netns.Link{}, fmt.Errorf("the pod's namespace has a link %s that is not ours: %w", podLink, err)
	}
	// Our end is there but the pod's is not: another namespace of the same pod.
	if err := b.cfg.Kernel.DelLink(v.Name); err != nil {
		return netns.Link{}, err
	}
	return b.cfg.Kernel.AddVeth(v)
}

// ensurePort sets up the host's end: forwarding and neighbour are pinned.
func (b *bridge) ensurePort(veth, br netns.Link, ip netip.Addr) error {
	k, mac := b.cfg.Kernel, netns.MACFromIPv4(ip)
	if veth.Master != br.Index {
		if err := k.SetMaster(veth.Index, br.Index); err != nil {
			return err
		}
	}
	if !veth.Up {
		if err := k.SetUp(veth.Index, true); err != nil {
			return err
		}
	}
	port := netns.BridgePort{Isolated: true}
	if b.bridgeNetfilter() {
		port = netns.BridgePort{Hairpin: true}
	}
	if err := k.SetBridgePort(veth.Index, port); err != nil {
		return err
	}
	if err := k.SetFDB(netns.FDBEntry{Link: veth.Index, MAC: mac}); err != nil {
		return err
	}
	return k.SetNeighbour(netns.Neighbour{Link: br.Index, IP: ip, MAC: mac})
}

// ensurePodEnd sets up the namespace of the pod.
func (b *bridge) ensurePodEnd(pod netns.Kernel, ip netip.Addr, br netns.Link) error {
	if err := pod.SetUp(loopbackIndex, true); err != nil {
		return err
	}
	eth, err := pod.LinkByName(podLink)
	if err != nil {
		return err
	}
	err = pod.AddAddr(eth.Index, netip.PrefixFrom(ip, 32))
	if err != nil && !errors.Is(err, netns.ErrExists) {
		return err
	}
	if err := pod.SetUp(eth.Index, true); err != nil {
		return err
	}
	if err := pod.SetNeighbour(netns.Neighbour{Link: eth.Index, IP: b.gateway, MAC: br.MAC}); err != nil {
		return err
	}
	for _, r := range b.podRoutes(eth.Index) {
		if err := pod.SetRoute(r); err != nil {
			return err
		}
	}
	return nil
}

func (b *bridge) podRoutes(link int) []netns.Route {
	return []netns.Route{
		{Dst: netip.PrefixFrom(b.gateway, 32), Link: link, Protocol: netns.ProtocolLighter},
		{Dst: netip.PrefixFrom(netip.IPv4Unspecified(), 0), Gateway: b.gateway, Link: link, Protocol: netns.ProtocolLighter},
	}
}

// Detach undoes all of it, whatever there is.
func (b *bridge) Detach(ctx context.Context, s Sandbox) error {
	defer b.pods.lock(s.PodUID)()
	if err := b.detach(ctx, s.PodUID); err != nil {
		return fmt.Errorf("detach pod %s/%s (%s): %w", s.PodNamespace, s.PodName, s.PodUID, err)
	}
	return nil
}

// detach gives the address and the record back only when all else is gone, so
// that a failure is found again.
func (b *bridge) detach(ctx context.Context, uid string) error {
	rec, recorded := b.records.get(uid)
	ip, leaseErr := b.cfg.IPAM.Lookup(uid)
	if !recorded && leaseErr != nil {
		return nil //nolint:nilerr // never attached, or detached already
	}
	var errs []error
	if recorded && len(rec.Sandbox.Ports) > 0 {
		left := make([]record, 0)
		for _, r := range b.records.list() {
			if r.Sandbox.PodUID != uid {
				left = append(left, r)
			}
		}
		errs = append(errs, b.rules.sync(ctx, left, false))
	}
	errs = append(errs, ignoreMissing(b.cfg.Kernel.DelLink(vethName(uid))))
	if leaseErr == nil {
		errs = append(errs, b.forgetNeighbour(ip))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return errors.Join(b.records.drop(uid), b.cfg.IPAM.Release(uid))
}

func (b *bridge) forgetNeighbour(ip netip.Addr) error {
	br, err := b.cfg.Kernel.LinkByName(b.cfg.Bridge)
	if err == nil {
		err = b.cfg.Kernel.DelNeighbour(netns.Neighbour{Link: br.Index, IP: ip})
	}
	return ignoreMissing(err)
}

func ignoreMissing(err error) error {
	if errors.Is(err, netns.ErrNotFound) {
		return nil
	}
	return err
}
