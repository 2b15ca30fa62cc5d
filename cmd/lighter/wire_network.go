package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"

	"lighter.dev/lighter/overlay/attach"
	"lighter.dev/lighter/overlay/dns"
	"lighter.dev/lighter/overlay/ipam"
	"lighter.dev/lighter/overlay/member"
	"lighter.dev/lighter/overlay/netns"
	"lighter.dev/lighter/overlay/service"
	"lighter.dev/lighter/overlay/vxlan"
)

const (
	podBridge  = "lighter0"
	vxlanLink  = "lighter.vx"
	dnsPort    = 53
	settleTime = 50 * time.Millisecond
)

// hostNetwork is one host's part of the overlay: device, bridge, gossip,
// services and DNS.
type hostNetwork struct {
	self     string
	facts    networkFacts
	log      *slog.Logger
	overlay  *vxlan.Reconciler
	attacher *attach.Attacher
	members  *member.Members
	proxy    *service.Proxy
	dns      *dns.Server
	nodes    corelisters.NodeLister
	synced   cache.InformerSynced
	changed  chan struct{}
	forget   func() error
}

// openNetwork waits for the facts and makes what pods can be attached to. It
// changes nothing that is right already.
func (h *host) openNetwork(ctx context.Context) (*hostNetwork, error) {
	facts, err := h.facts(ctx)
	if err != nil {
		return nil, fmt.Errorf("network: %w", err)
	}
	n := &hostNetwork{
		self: h.options.nodeName, facts: facts, log: h.logOf("network"), changed: make(chan struct{}, 1),
		nodes: h.informers.Core().V1().Nodes().Lister(), forget: func() error { return forgetFacts(h.dir("network.json")) },
	}
	if err := n.openOverlay(ctx, h); err != nil {
		return nil, err
	}
	if err := n.openServices(h); err != nil {
		return nil, err
	}
	handle, err := h.informers.Core().V1().Nodes().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { n.wake() }, UpdateFunc: func(any, any) { n.wake() }, DeleteFunc: func(any) { n.wake() },
	})
	if err != nil {
		return nil, err
	}
	n.synced = handle.HasSynced
	// For the kinds that were asked for since the first start.
	h.informers.Start(ctx.Done())
	return n, nil
}

// openOverlay makes the VXLAN device and the bridge, and starts gossip.
func (n *hostNetwork) openOverlay(ctx context.Context, h *host) error {
	under, err := findUnderlay(h.ip)
	if err != nil {
		return err
	}
	clusterCIDR, err := netip.ParsePrefix(n.facts.Cluster.PodCIDR)
	if err != nil {
		return fmt.Errorf("network: the cluster's pod CIDR: %w", err)
	}
	kernel, err := netns.Current()
	if err != nil {
		return err
	}
	n.overlay, err = vxlan.New(vxlan.Config{
		Kernel: kernel, Device: vxlanLink, NodeName: n.self, UnderlayIP: h.ip, PodCIDR: n.facts.PodCIDR,
		StateDir: h.dir("overlay"), Log: h.logOf("vxlan"),
	})
	if err != nil {
		return err
	}
	if err := n.overlay.Sync(ctx); err != nil {
		return err
	}
	leases, err := ipam.Open(ipam.Config{Dir: h.dir("addresses"), CIDR: n.facts.PodCIDR, Log: h.logOf("ipam")})
	if err != nil {
		return err
	}
	n.attacher, err = attach.New(ctx, attach.Config{
		Bridge: podBridge, PodCIDR: n.facts.PodCIDR, ClusterCIDR: clusterCIDR, MTU: under.MTU - vxlan.Overhead, IPAM: leases,
		StateDir: h.dir("network"), HostIPs: []netip.Addr{h.ip}, Overlay: vxlanLink, Log: h.logOf("attach"), Kernel: kernel,
	})
	if err != nil {
		return err
	}
	self := n.overlay.Self()
	n.members, err = member.New(member.Config{
		Self: member.Peer{
			NodeName: n.self, UnderlayIP: h.ip, VTEPMAC: self.VTEPMAC, PodCIDR: n.facts.PodCIDR, AgentPort: uint16(h.options.port),
		},
		Keys: [][]byte{n.facts.GossipKey}, ClusterID: n.facts.Cluster.ID,
		Verifier: member.NodeVerifier(n.nodes.Get), Log: h.logOf("gossip"),
	})
	return err
}

// openServices prepares the balancing of services and cluster DNS.
func (n *hostNetwork) openServices(h *host) error {
	podCIDR, podErr := netip.ParsePrefix(n.facts.Cluster.PodCIDR)
	serviceCIDR, serviceErr := netip.ParsePrefix(n.facts.Cluster.ServiceCIDR)
	if err := errors.Join(podErr, serviceErr); err != nil {
		return fmt.Errorf("network: the cluster's address ranges: %w", err)
	}
	core, slices := h.informers.Core().V1(), h.informers.Discovery().V1().EndpointSlices()
	var err error
	n.proxy, err = service.New(service.Config{
		NodeName: n.self, PodCIDRs: []netip.Prefix{podCIDR}, ServiceCIDRs: []netip.Prefix{serviceCIDR}, Device: podBridge,
		Services: core.Services(), Slices: slices, Log: h.logOf("service"),
	})
	if err != nil {
		return err
	}
	n.dns, err = dns.New(dns.Config{
		Listen: []netip.AddrPort{netip.AddrPortFrom(n.dnsServer(), dnsPort)}, Domain: n.facts.Cluster.Domain,
		ClusterCIDRs: []netip.Prefix{podCIDR, serviceCIDR},
		Services:     core.Services(), Slices: slices, Namespaces: core.Namespaces(), Log: h.logOf("dns"),
	})
	return err
}

// dnsServer is the address at which pods of this host find cluster DNS.
func (n *hostNetwork) dnsServer() netip.Addr { return ipam.Gateway(n.facts.PodCIDR) }

// annotations publish this host's end of the overlay.
func (n *hostNetwork) annotations() map[string]string {
	self := n.overlay.Self()
	return map[string]string{
		vxlan.AnnotationVTEPMAC: self.VTEPMAC.String(), vxlan.AnnotationUnderlayIP: self.UnderlayIP.String(),
	}
}

func (n *hostNetwork) wake() {
	select {
	case n.changed <- struct{}{}:
	default:
	}
}

// Run keeps the network right until ctx ends and leaves it in place.
func (n *hostNetwork) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return n.overlay.Run(ctx) })
	group.Go(func() error { return n.attacher.Run(ctx) })
	group.Go(func() error { return n.proxy.Run(ctx) })
	group.Go(func() error { return n.dns.Run(ctx) })
	group.Go(func() error { return n.followNodes(ctx) })
	err := group.Wait()
	return errors.Join(err, n.members.Shutdown())
}

// followNodes keeps the overlay's peers and the gossip in step with the Node
// objects. Before they are known, what the last run left stays.
func (n *hostNetwork) followNodes(ctx context.Context) error {
	if !cache.WaitForCacheSync(ctx.Done(), n.synced) {
		return nil
	}
	var joining sync.WaitGroup
	defer joining.Wait()
	var seeds []string
	for {
		all, err := n.nodes.List(labels.Everything())
		if err != nil {
			return err
		}
		if err := n.ownCIDR(all); err != nil {
			return err
		}
		peers, addresses := n.peersOf(all)
		n.overlay.SetPeers(peers)
		n.members.Recheck()
		if !slices.Equal(seeds, addresses) {
			seeds = addresses
			joining.Go(func() {
				if err := n.members.Join(ctx, addresses); err != nil && ctx.Err() == nil {
					n.log.Warn("no other host answers yet; gossip goes on trying", "error", err)
				}
			})
		}
		select {
		case <-ctx.Done():
			return nil
		case <-n.changed:
		}
		// Heartbeats and bursts of nodes: once for all of them.
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(settleTime):
		}
	}
}

// peersOf are the other nodes as the overlay and as the gossip need them.
func (n *hostNetwork) peersOf(nodes []*corev1.Node) (peers []vxlan.Peer, addresses []string) {
	for _, node := range nodes {
		if node.Name == n.self {
			continue
		}
		peer, err := vxlan.PeerOf(node)
		if err != nil {
			n.log.Debug("not a peer yet", "error", err)
			continue
		}
		peers = append(peers, peer)
		addresses = append(addresses, peer.UnderlayIP.String())
	}
	slices.Sort(addresses)
	return peers, addresses
}

// ownCIDR notices that this host was deleted and came back with other addresses.
// All that was built on the old ones has to be made anew, so the agent starts
// from the beginning.
func (n *hostNetwork) ownCIDR(nodes []*corev1.Node) error {
	for _, node := range nodes {
		if node.Name != n.self || node.Spec.PodCIDR == "" || node.Spec.PodCIDR == n.facts.PodCIDR.String() {
			continue
		}
		return errors.Join(
			fmt.Errorf("this host's pod CIDR is now %s, it was %s: start the agent again to take it over", node.Spec.PodCIDR, n.facts.PodCIDR),
			n.forget())
	}
	return nil
}

// networkReady says why pods cannot be connected yet.
func (h *host) networkReady() error {
	if h.network.Load() == nil {
		return errors.New("waiting for the cluster's network settings and this host's pod CIDR")
	}
	return nil
}

// alive tells whether a node answers gossip. Without gossip everybody may.
func (h *host) alive(node string) bool {
	n := h.network.Load()
	return n == nil || slices.Contains(n.members.Reachable(), node)
}

// lost tells whether a node answered gossip once and does not now.
func (h *host) lost(node string) bool {
	n := h.network.Load()
	return n != nil && n.members.Lost(node)
}
