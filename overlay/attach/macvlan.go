package attach

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"

	"lighter.dev/lighter/overlay/netns"
)

// MacvlanConfig is a network of pods that sit directly on the underlay.
type MacvlanConfig struct {
	// Parent is the host's link to that network.
	Parent string
	// Subnet is the network's, Gateway its router (the zero Addr: none).
	Subnet  netip.Prefix
	Gateway netip.Addr
	// MTU in bytes; 0 means the parent's.
	MTU int
	// IPAM leases addresses of the subnet that nothing else on that network has.
	IPAM IPAM
	// StateDir keeps a record per pod, apart from other networks'.
	StateDir string
	Log      *slog.Logger

	// Kernel is the host's namespace; nil means this process's.
	Kernel netns.Kernel
	// OpenNS opens a pod's namespace; nil means netns.Open.
	OpenNS func(path string) (netns.Kernel, error)
}

// macvlan is the driver of KindMacvlan. A pod gets a device in bridge mode:
// pods of one host reach one another, but, as the kernel has it, not their host.
// A pod's MAC follows from its address, so that neighbours of the network stay
// right when an address is used again.
type macvlan struct {
	cfg     MacvlanConfig
	records *records
	pods    keyedMutex
}

var _ Driver = (*macvlan)(nil)

// NewMacvlan makes the driver of one such network, for Attacher.Register.
func NewMacvlan(cfg MacvlanConfig) (Driver, error) {
	if !cfg.Subnet.Addr().Is4() || cfg.Gateway.IsValid() && !cfg.Subnet.Contains(cfg.Gateway) {
		return nil, fmt.Errorf("macvlan on %s: subnet %s, gateway %s: want an IPv4 network and an address of it",
			cfg.Parent, cfg.Subnet, cfg.Gateway)
	}
	if cfg.Kernel == nil {
		k, err := netns.Current()
		if err != nil {
			return nil, fmt.Errorf("macvlan on %s: %w", cfg.Parent, err)
		}
		cfg.Kernel = k
	}
	if cfg.OpenNS == nil {
		cfg.OpenNS = func(path string) (netns.Kernel, error) { return netns.Open(path) }
	}
	rs, err := openRecords(filepath.Join(cfg.StateDir, "macvlan"), cfg.Log)
	if err != nil {
		return nil, fmt.Errorf("macvlan on %s: %w", cfg.Parent, err)
	}
	return &macvlan{cfg: cfg, records: rs}, nil
}

// Attach makes the device in the pod's namespace.
func (m *macvlan) Attach(_ context.Context, s Sandbox) (Result, error) {
	fail := func(err error) (Result, error) {
		return Result{}, fmt.Errorf("attach pod %s/%s by macvlan on %s: %w", s.PodNamespace, s.PodName, m.cfg.Parent, err)
	}
	if len(s.Ports) > 0 {
		return fail(errors.New("the pod has an address of its own on the network, it cannot publish ports of the host"))
	}
	defer m.pods.lock(s.PodUID)()
	_, again := m.records.get(s.PodUID)
	pod, err := m.cfg.OpenNS(s.NetNS)
	if err != nil {
		return fail(err)
	}
	defer func() { _ = pod.Close() }()
	ip, err := m.cfg.IPAM.Allocate(s.PodUID)
	if err == nil {
		err = m.records.put(record{Sandbox: s, IP: ip})
	}
	if err == nil {
		err = m.connect(pod, ip)
	}
	if err != nil {
		if !again {
			err = errors.Join(err, m.detach(s.PodUID))
		}
		return fail(err)
	}
	return Result{IPs: []netip.Addr{ip}}, nil
}

func (m *macvlan) connect(pod netns.Kernel, ip netip.Addr) error {
	parent, err := m.cfg.Kernel.LinkByName(m.cfg.Parent)
	if err != nil {
		return err
	}
	mac := netns.MACFromIPv4(ip)
	err = m.cfg.Kernel.AddMacvlan(netns.Macvlan{
		Parent: parent.Index, MTU: m.cfg.MTU, Peer: netns.Peer{NS: pod, Name: podLink, MAC: mac},
	})
	if err != nil && !errors.Is(err, netns.ErrExists) {
		return err
	}
	eth, lookup := pod.LinkByName(podLink)
	if lookup != nil {
		return errors.Join(err, lookup)
	}
	if eth.Kind != netns.KindMacvlan || eth.MAC != mac {
		return fmt.Errorf("the pod's namespace has a link %s that is not ours: %w", podLink, netns.ErrExists)
	}
	if err := pod.SetUp(loopbackIndex, true); err != nil {
		return err
	}
	err = pod.AddAddr(eth.Index, m.prefix(ip))
	if err != nil && !errors.Is(err, netns.ErrExists) {
		return err
	}
	if err := pod.SetUp(eth.Index, true); err != nil {
		return err
	}
	if _, err := pod.LinkByName(podLink); err != nil { // has the carrier settled, as in bridge.settleCarrier
		return err
	}
	if !m.cfg.Gateway.IsValid() {
		return nil
	}
	return pod.SetRoute(netns.Route{
		Dst: netip.PrefixFrom(netip.IPv4Unspecified(), 0), Gateway: m.cfg.Gateway, Link: eth.Index, Protocol: netns.ProtocolLighter,
	})
}

func (m *macvlan) prefix(ip netip.Addr) netip.Prefix {
	return netip.PrefixFrom(ip, m.cfg.Subnet.Bits())
}

// Detach removes the device where its namespace still is, then the lease.
func (m *macvlan) Detach(_ context.Context, s Sandbox) error {
	defer m.pods.lock(s.PodUID)()
	if err := m.detach(s.PodUID); err != nil {
		return fmt.Errorf("detach pod %s from macvlan on %s: %w", s.PodUID, m.cfg.Parent, err)
	}
	return nil
}

func (m *macvlan) detach(uid string) error {
	if rec, ok := m.records.get(uid); ok {
		pod, err := m.cfg.OpenNS(rec.Sandbox.NetNS)
		if err == nil {
			eth, lookup := pod.LinkByName(podLink)
			if err = lookup; err == nil && eth.MAC == netns.MACFromIPv4(rec.IP) {
				err = pod.DelLink(podLink)
			}
			_ = pod.Close()
		}
		if err := ignoreMissing(err); err != nil {
			return err
		}
	}
	return errors.Join(m.records.drop(uid), m.cfg.IPAM.Release(uid))
}

// Status looks whether the device with its address is there.
func (m *macvlan) Status(_ context.Context, s Sandbox) (Result, error) {
	rec, ok := m.records.get(s.PodUID)
	if ok {
		if pod, err := m.cfg.OpenNS(rec.Sandbox.NetNS); err == nil {
			defer func() { _ = pod.Close() }()
			eth, lookup := pod.LinkByName(podLink)
			addrs, err := pod.Addrs(eth.Index)
			if lookup == nil && err == nil && eth.Up && slices.Contains(addrs, m.prefix(rec.IP)) {
				return Result{IPs: []netip.Addr{rec.IP}}, nil
			}
		}
	}
	return Result{}, fmt.Errorf("pod %s/%s: %w", s.PodNamespace, s.PodName, ErrNotAttached)
}

// Keep detaches the pods that are not in the list.
func (m *macvlan) Keep(ctx context.Context, podUIDs []string) error {
	var errs []error
	for _, l := range m.cfg.IPAM.Leases() {
		if !slices.Contains(podUIDs, l.PodUID) {
			errs = append(errs, m.Detach(ctx, Sandbox{PodUID: l.PodUID}))
		}
	}
	return errors.Join(errs...)
}
