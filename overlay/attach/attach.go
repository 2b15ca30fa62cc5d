// Package attach connects pods to networks.
//
//   - types.go, driver.go  the vocabulary and the Driver contract
//   - attach.go            Attacher: picks the driver of a sandbox
//   - plain.go             the drivers without work: host, none
//   - bridge*.go           the default: a veth pair to the host's bridge
//   - macvlan.go           optional: a device of its own on the underlay's network
//   - nft.go               masquerade and published ports, one nftables table
//   - records.go           what is attached, one file per pod
//
// # Bridge and overlay
//
// A pod's address is a /32. Its only routes are the bridge's address (on the
// link) and a default route over it, both with a permanent neighbour, so all
// traffic, also to a pod on the same host, is routed by the host. That is why
// service addresses and policies work between pods of one host without
// br_netfilter, and why no first packet waits for ARP. Ports of the bridge are
// isolated from one another, learn nothing and are not flooded: the forwarding
// entry of each pod is pinned. A pod's MAC follows from its address.
//
// Routes to other hosts' pods are overlay/vxlan's, which this package does not need to know.
package attach

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"

	"sigs.k8s.io/knftables"

	"lighter.dev/lighter/overlay/ipam"
	"lighter.dev/lighter/overlay/netns"
)

// IPAM leases addresses of the node's pod CIDR; *ipam.Pool is one.
type IPAM interface {
	Allocate(podUID string) (netip.Addr, error)
	Release(podUID string) error
	Lookup(podUID string) (netip.Addr, error)
	Leases() []ipam.Lease
}

// Config of an Attacher.
type Config struct {
	// Bridge is the name of the host's bridge, "lighter0" when empty.
	Bridge string
	// PodCIDR is this node's part of ClusterCIDR. The bridge gets its first host address.
	PodCIDR     netip.Prefix
	ClusterCIDR netip.Prefix
	// MTU of the pods' links in bytes: the VXLAN device's, so that no packet is
	// fragmented on its way to another host.
	MTU  int
	IPAM IPAM
	// StateDir keeps a record per pod. It is made when missing.
	StateDir string
	// HostIPs are the node's addresses: what a pod in the host's network reports.
	HostIPs []netip.Addr
	// Overlay is the VXLAN device's name, "lighter.vx" when empty, and OverlayPort
	// its UDP port, 4789 when 0: for the rules that concern traffic through it.
	Overlay     string
	OverlayPort uint16
	Log         *slog.Logger

	// Kernel is the host's namespace; nil means this process's.
	Kernel netns.Kernel
	// OpenNS opens a pod's namespace; nil means netns.Open.
	OpenNS func(path string) (netns.Kernel, error)
	// NFT is the table of this package; nil means the host namespace's.
	NFT knftables.Interface
}

func (c *Config) setDefaults() error {
	if c.Bridge == "" {
		c.Bridge = "lighter0"
	}
	if c.Overlay == "" {
		c.Overlay = "lighter.vx"
	}
	if c.OverlayPort == 0 {
		c.OverlayPort = 4789
	}
	if !c.PodCIDR.Addr().Is4() || !c.ClusterCIDR.Addr().Is4() || !c.ClusterCIDR.Overlaps(c.PodCIDR) {
		return fmt.Errorf("attach: pod CIDR %s: want an IPv4 part of the cluster's %s", c.PodCIDR, c.ClusterCIDR)
	}
	c.PodCIDR, c.ClusterCIDR = c.PodCIDR.Masked(), c.ClusterCIDR.Masked()
	if c.Kernel == nil {
		k, err := netns.Current()
		if err != nil {
			return fmt.Errorf("attach: %w", err)
		}
		c.Kernel = k
	}
	if c.OpenNS == nil {
		c.OpenNS = func(path string) (netns.Kernel, error) { return netns.Open(path) }
	}
	if c.NFT == nil {
		nft, err := openTable(c.Kernel)
		if err != nil {
			return fmt.Errorf("attach: %w", err)
		}
		c.NFT = nft
	}
	return nil
}

// Attacher picks the driver for a sandbox. It is itself a Driver.
type Attacher struct {
	drivers map[Kind]Driver
	bridge  *bridge
}

var _ Driver = (*Attacher)(nil)

// New sets up the bridge, its sysctls and the nftables table, and reads the
// records of the last run. It changes nothing that is right already, so traffic
// of running pods goes on.
func New(ctx context.Context, cfg Config) (*Attacher, error) {
	if err := cfg.setDefaults(); err != nil {
		return nil, err
	}
	records, err := openRecords(filepath.Join(cfg.StateDir, "attached"), cfg.Log)
	if err != nil {
		return nil, fmt.Errorf("attach: %w", err)
	}
	b := newBridge(cfg, records)
	if err := b.ensure(ctx); err != nil {
		return nil, err
	}
	return &Attacher{bridge: b, drivers: map[Kind]Driver{
		KindBridge: b, KindHost: hostDriver{ips: cfg.HostIPs}, KindNone: noneDriver{open: cfg.OpenNS},
	}}, nil
}

// Register adds the driver of another kind, before first use.
func (a *Attacher) Register(kind Kind, d Driver) { a.drivers[kind] = d }

func (a *Attacher) driver(s Sandbox) (Driver, error) {
	kind := s.Network
	switch {
	case kind == "" && s.NetNS == "":
		kind = KindHost
	case kind == "":
		kind = KindBridge
	}
	d := a.drivers[kind]
	if d == nil {
		return nil, fmt.Errorf("attach pod %s/%s: unknown network kind %q", s.PodNamespace, s.PodName, kind)
	}
	return d, nil
}

// Attach connects the sandbox to its network.
func (a *Attacher) Attach(ctx context.Context, s Sandbox) (Result, error) {
	d, err := a.driver(s)
	if err != nil {
		return Result{}, err
	}
	return d.Attach(ctx, s)
}

// Detach asks all drivers, since after a crash the caller may know no more than the UID.
func (a *Attacher) Detach(ctx context.Context, s Sandbox) error {
	var errs []error
	for _, d := range a.drivers {
		errs = append(errs, d.Detach(ctx, s))
	}
	return errors.Join(errs...)
}

// Status is what the sandbox has.
func (a *Attacher) Status(ctx context.Context, s Sandbox) (Result, error) {
	d, err := a.driver(s)
	if err != nil {
		return Result{}, err
	}
	return d.Status(ctx, s)
}

// Keep removes what belongs to no pod of the list.
func (a *Attacher) Keep(ctx context.Context, podUIDs []string) error {
	var errs []error
	for _, d := range a.drivers {
		errs = append(errs, d.Keep(ctx, slices.Clone(podUIDs)))
	}
	return errors.Join(errs...)
}

// Run mends the bridge, the pods' ports and the nftables table when something
// else changes them, until ctx ends. It leaves everything in place.
func (a *Attacher) Run(ctx context.Context) error { return a.bridge.run(ctx) }

// Teardown detaches all pods and removes the bridge and the nftables table.
func (a *Attacher) Teardown(ctx context.Context) error {
	return errors.Join(a.Keep(ctx, nil), a.bridge.teardown(ctx))
}
