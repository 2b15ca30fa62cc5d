// Package vxlan is the overlay's data plane between hosts: one VXLAN device
// (RFC 7348) per host and, for each peer, a unicast forwarding entry, a
// permanent neighbour and an onlink route.
//
//	10.42.2.0/24 via 10.42.2.0 onlink      route to the peer's pods
//	10.42.2.0 lladdr <peer's VTEP MAC>     neighbour: the peer's device
//	<peer's VTEP MAC> dst <underlay IP>    forwarding entry
//
// As in flannel, a node's VTEP has the network address of its pod CIDR (.0/32),
// which no pod ever gets; it is also the source of the host's own traffic to
// remote pods. Nothing is learned and nothing is flooded: what is not entered
// here goes nowhere.
//
// Reconciler is level-triggered: Plan is a pure function from (wanted, observed)
// to printable operations, and Run applies it after every change of the peers
// or of the kernel's state. Peers come from Node objects and are kept on disk;
// until the first SetPeers after a start the peers in the kernel, or else those
// on disk, stay, so that neither a restart nor a control plane that is down
// disturbs traffic.
//
// Checksums: the outer UDP checksum stays on, as the kernel has it by default; it
// is derived from the inner one without touching the data (local checksum
// offload) and both are left to the NIC where it can. The known bug of kernels
// before 5.7, where a masqueraded VXLAN packet got a wrong checksum, needs NAT on
// the outer packet; overlay/attach excludes these from connection tracking.
package vxlan

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"lighter.dev/lighter/overlay/ipam"
	"lighter.dev/lighter/overlay/netns"
)

// Overhead is what VXLAN over IPv4 takes from the underlay's MTU: outer IPv4
// (20), UDP (8), VXLAN (8) and the inner Ethernet header (14 bytes).
const Overhead = 50

// Config of a Reconciler.
type Config struct {
	// Kernel is the host's namespace.
	Kernel netns.Kernel
	// Device is the name of the VXLAN device, "lighter.vx" when empty.
	Device string
	// VNI is 1 when 0; Port is the UDP port, 4789 when 0 (IANA).
	VNI  int
	Port uint16
	// NodeName is this node; its device's MAC follows from it (MACForNode).
	NodeName string
	// UnderlayIP is this host's address towards the others. It must be on a link,
	// whose MTU less Overhead becomes the device's.
	UnderlayIP netip.Addr
	// PodCIDR is this node's.
	PodCIDR netip.Prefix
	// StateDir keeps the peers over a restart.
	StateDir string
	Log      *slog.Logger
}

// Reconciler keeps the device and its entries as they should be.
type Reconciler struct {
	cfg  Config
	wake chan struct{}

	mu     sync.Mutex // serialises Sync and Teardown, guards the rest
	peers  []Peer
	known  bool     // SetPeers was called since the start, or peers were on disk
	refuse []string // refusals already logged
	gone   bool     // Teardown was called
}

// New reads the peers of the last run. It does not touch the kernel.
func New(cfg Config) (*Reconciler, error) {
	if cfg.Device == "" {
		cfg.Device = "lighter.vx"
	}
	if cfg.VNI == 0 {
		cfg.VNI = 1
	}
	if cfg.Port == 0 {
		cfg.Port = 4789
	}
	if !cfg.UnderlayIP.Is4() || !cfg.PodCIDR.Addr().Is4() {
		return nil, fmt.Errorf("vxlan: underlay IP %s, pod CIDR %s: want IPv4", cfg.UnderlayIP, cfg.PodCIDR)
	}
	cfg.PodCIDR = cfg.PodCIDR.Masked()
	r := &Reconciler{cfg: cfg, wake: make(chan struct{}, 1)}
	peers, err := loadPeers(cfg.StateDir)
	if err != nil {
		cfg.Log.Warn("peers of the last run are lost; the kernel's stay until the API answers", "error", err)
	}
	if len(peers) > 0 {
		r.peers, r.known = peers, true
	}
	return r, nil
}

// Self is this node as the others shall see it.
func (r *Reconciler) Self() Peer {
	return Peer{
		NodeName: r.cfg.NodeName, PodCIDR: r.cfg.PodCIDR,
		VTEPMAC: MACForNode(r.cfg.NodeName), UnderlayIP: r.cfg.UnderlayIP,
	}
}

// SetPeers replaces the wanted peers; this node itself may be among them. It
// returns at once, Run does the work.
func (r *Reconciler) SetPeers(peers []Peer) {
	accepted, refused := settle(r.Self(), peers)
	r.mu.Lock()
	for _, text := range refused {
		if !slices.Contains(r.refuse, text) {
			r.cfg.Log.Warn("peer refused", "why", text)
		}
	}
	r.refuse = refused
	same := r.known && slices.Equal(r.peers, accepted)
	r.peers, r.known = accepted, true
	r.mu.Unlock()
	if same {
		return
	}
	if err := storePeers(r.cfg.StateDir, accepted); err != nil {
		r.cfg.Log.Warn("peers are not kept for the next start", "error", err)
	}
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Times of the reconciling loop.
const (
	// quiet bounds how often a storm of kernel changes (pods come and go) causes a look.
	quiet = 100 * time.Millisecond
	// retry is the pause after a failure.
	retry = time.Second
	// resync is the longest time between two looks.
	resync = 30 * time.Second
)

// Run reconciles until ctx ends. It leaves the data plane in place.
func (r *Reconciler) Run(ctx context.Context) error {
	changes, err := r.cfg.Kernel.Watch(ctx)
	if err != nil {
		return fmt.Errorf("vxlan: %w", err)
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		pause := resync
		if err := r.Sync(ctx); err != nil && ctx.Err() == nil {
			r.cfg.Log.Error("overlay is not as it should be", "device", r.cfg.Device, "error", err)
			pause = retry
		}
		timer.Reset(pause)
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-r.wake:
		case _, open := <-changes:
			if !open {
				changes = nil // resync alone remains; it is slower, not wrong
				continue
			}
			timer.Reset(quiet)
			select {
			case <-ctx.Done():
				return nil
			case <-timer.C:
			case <-r.wake:
			}
		}
	}
}

// Sync looks once and mends what differs.
func (r *Reconciler) Sync(context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.gone {
		return nil
	}
	wanted, err := r.wanted()
	if err != nil {
		return err
	}
	observed, err := observe(r.cfg.Kernel, wanted)
	if err != nil {
		return fmt.Errorf("vxlan: observe %s: %w", r.cfg.Device, err)
	}
	return r.apply(Plan(wanted, observed), observed.Device.Index)
}

// apply runs all operations; one that fails does not keep the others from running.
func (r *Reconciler) apply(ops []Op, link int) error {
	var errs []error
	for _, o := range ops {
		err := o.do(r.cfg.Kernel, link)
		r.cfg.Log.Info("overlay", "op", o.String(), "error", err)
		if o.creates {
			l, lookup := r.cfg.Kernel.LinkByName(r.cfg.Device)
			if err = errors.Join(err, lookup); err != nil {
				return fmt.Errorf("vxlan: %s: %w", o, err)
			}
			link = l.Index
			continue
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("vxlan: %s: %w", o, err))
		}
	}
	return errors.Join(errs...)
}

// Teardown removes the device with all that hangs on it, and the kept peers.
// Later Syncs do nothing.
func (r *Reconciler) Teardown() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.gone = true
	err := r.cfg.Kernel.DelLink(r.cfg.Device)
	if errors.Is(err, netns.ErrNotFound) {
		err = nil
	}
	if err = errors.Join(err, dropPeers(r.cfg.StateDir)); err != nil {
		return fmt.Errorf("vxlan: tear down: %w", err)
	}
	return nil
}

// wanted is the wish for this moment; the underlay's MTU may have changed.
func (r *Reconciler) wanted() (State, error) {
	under, err := linkWith(r.cfg.Kernel, r.cfg.UnderlayIP)
	if err != nil {
		return State{}, fmt.Errorf("vxlan: %w", err)
	}
	name := r.cfg.Device
	w := State{
		Exists: true,
		Device: netns.Link{
			Name: name, Kind: netns.KindVXLAN, MAC: MACForNode(r.cfg.NodeName), MTU: under.MTU - Overhead, Up: true,
			Parent: under.Index, VXLAN: netns.VXLAN{VNI: r.cfg.VNI, Port: r.cfg.Port, Local: r.cfg.UnderlayIP},
		},
		Addrs: []netip.Prefix{netip.PrefixFrom(ipam.VTEP(r.cfg.PodCIDR), 32)},
		Sysctls: map[string]string{
			"net/ipv4/ip_forward": "1",
			// Loose (RFC 3704): replies to a node port may come by another way than they would go.
			"net/ipv4/conf/" + name + "/rp_filter": "2",
			// No link-local address: nothing speaks IPv6 on this device.
			"net/ipv6/conf/" + name + "/addr_gen_mode": "1",
		},
		PeersUnknown: !r.known,
	}
	for _, p := range r.peers {
		w.FDB = append(w.FDB, netns.FDBEntry{MAC: p.VTEPMAC, Remote: p.UnderlayIP})
		w.Neighbours = append(w.Neighbours, netns.Neighbour{IP: p.vtep(), MAC: p.VTEPMAC})
		w.Routes = append(w.Routes, netns.Route{Dst: p.PodCIDR, Gateway: p.vtep(), Onlink: true, Protocol: netns.ProtocolLighter})
	}
	return w, nil
}
