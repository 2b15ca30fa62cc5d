package service

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/knftables"
)

// Input is everything that decides the content of the table.
type Input struct {
	Family   knftables.Family
	Node     string         // name of this host's Node
	PodCIDRs []netip.Prefix // sources in it are pods
	Services []*corev1.Service
	Slices   []*discoveryv1.EndpointSlice
}

// Build decides what the table should hold. It is pure: same input, same table.
func Build(in Input) *Table {
	p := protoOf(in.Family)
	b := &builder{proto: p, in: in, table: p.skeleton(in.PodCIDRs)}
	byService := b.slicesByService()
	services := slices.Clone(in.Services)
	// The oldest service keeps an address that two claim (externalIPs are not
	// checked by the API), so a newcomer cannot take over its traffic.
	slices.SortFunc(services, func(x, y *corev1.Service) int {
		return cmp.Or(x.CreationTimestamp.Compare(y.CreationTimestamp.Time),
			cmp.Compare(x.Namespace, y.Namespace), cmp.Compare(x.Name, y.Name))
	})
	for _, svc := range services {
		if svc.Spec.Type == corev1.ServiceTypeExternalName || svc.Spec.ClusterIP == corev1.ClusterIPNone {
			continue // these exist in DNS only
		}
		own := byService[types.NamespacedName{Namespace: svc.Namespace, Name: svc.Name}]
		for i := range svc.Spec.Ports {
			b.addPort(svc, &svc.Spec.Ports[i], own)
		}
	}
	return b.table
}

// builder fills one table.
type builder struct {
	proto
	in    Input
	table *Table
}

func (b *builder) slicesByService() map[types.NamespacedName][]*discoveryv1.EndpointSlice {
	wanted := discoveryv1.AddressTypeIPv4
	if b.family == knftables.IPv6Family {
		wanted = discoveryv1.AddressTypeIPv6
	}
	all := make(map[types.NamespacedName][]*discoveryv1.EndpointSlice, len(b.in.Services))
	for _, slice := range b.in.Slices {
		if name := slice.Labels[discoveryv1.LabelServiceName]; name != "" && slice.AddressType == wanted {
			key := types.NamespacedName{Namespace: slice.Namespace, Name: name}
			all[key] = append(all[key], slice)
		}
	}
	return all
}

// addPort adds everything about one port of one service.
func (b *builder) addPort(svc *corev1.Service, port *corev1.ServicePort, own []*discoveryv1.EndpointSlice) {
	found := b.collect(own, port.Name, port.Protocol, b.in.Node)
	cluster := found.cluster()
	for _, ep := range cluster {
		if ep.local {
			ip := ep.addr.Addr().String()
			b.table.Sets[setHairpin].Elements[ip+" . "+ip] = ""
		}
	}
	b.addClusterIPs(svc, port, found)
	frontends := b.external(svc, port)
	if len(frontends) == 0 {
		return
	}
	switch {
	case len(cluster) == 0:
		for _, f := range frontends {
			f.refuse(b.table, "goto "+chainRefuse)
		}
	case svc.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal:
		verdict := "goto " + b.localPolicyChain(svc, port, found)
		for _, f := range frontends {
			f.deliver(b.table, verdict)
		}
	case svc.Spec.SessionAffinity == corev1.ServiceAffinityClientIP:
		verdict := "goto " + b.maskedChain(svc, port, b.affinityChain(svc, port, "cluster", cluster))
		for _, f := range frontends {
			f.deliver(b.table, verdict)
		}
	default:
		for _, f := range frontends {
			f.share(b, cluster, true)
		}
	}
}

// addClusterIPs adds the service's own virtual addresses.
func (b *builder) addClusterIPs(svc *corev1.Service, port *corev1.ServicePort, found candidates) {
	targets, none, scope := found.cluster(), "goto "+chainRefuse, "cluster"
	if policy := svc.Spec.InternalTrafficPolicy; policy != nil && *policy == corev1.ServiceInternalTrafficPolicyLocal {
		if len(targets) > 0 {
			none = "drop" // somebody serves it, only not here: no reason to claim nobody does
		}
		targets, scope = found.local(), "local"
	}
	for _, ip := range clusterIPs(svc) {
		addr, err := netip.ParseAddr(ip)
		if err != nil || !b.has(addr) {
			continue
		}
		b.table.Sets[setClusterIPs].Elements[addr.String()] = ""
		f := b.addressFrontend(addr, port)
		switch {
		case len(targets) == 0:
			f.refuse(b.table, none)
		case svc.Spec.SessionAffinity == corev1.ServiceAffinityClientIP:
			f.deliver(b.table, "goto "+b.affinityChain(svc, port, scope, targets))
		default:
			f.share(b, targets, false)
		}
	}
}

func clusterIPs(svc *corev1.Service) []string {
	if len(svc.Spec.ClusterIPs) == 0 && svc.Spec.ClusterIP != "" {
		return []string{svc.Spec.ClusterIP}
	}
	return svc.Spec.ClusterIPs
}

// external are the ways into a service port from outside the cluster.
func (b *builder) external(svc *corev1.Service, port *corev1.ServicePort) []frontend {
	var all []frontend
	addresses := slices.Clone(svc.Spec.ExternalIPs)
	for _, ingress := range svc.Status.LoadBalancer.Ingress {
		// The mode Proxy means that the balancer sends to the node port itself (KEP-1860).
		if ingress.IPMode == nil || *ingress.IPMode == corev1.LoadBalancerIPModeVIP {
			addresses = append(addresses, ingress.IP)
		}
	}
	for _, ip := range addresses {
		if addr, err := netip.ParseAddr(ip); err == nil && b.has(addr) {
			all = append(all, b.addressFrontend(addr, port))
		}
	}
	if port.NodePort != 0 {
		all = append(all, frontend{
			key:      protocolName(port.Protocol) + " . " + strconv.Itoa(int(port.NodePort)),
			selector: "meta l4proto . th dport",
			services: mapNodePorts, endpoints: mapNodePortEndpoints, none: mapNoNodePorts, chain: "nodeport-",
		})
	}
	return all
}

// frontend is one key under which a service port is reached, and the maps for keys of its kind.
type frontend struct {
	key                       string
	selector                  string // the nft expression that yields the key
	services, endpoints, none string // map names
	chain                     string // prefix of the shared chains
}

func (b *builder) addressFrontend(addr netip.Addr, port *corev1.ServicePort) frontend {
	return frontend{
		key:      addr.String() + " . " + protocolName(port.Protocol) + " . " + strconv.Itoa(int(port.Port)),
		selector: b.ip + " daddr . meta l4proto . th dport",
		services: mapServices, endpoints: mapEndpoints, none: mapNoEndpoints, chain: "pick-",
	}
}

// taken tells whether an older service has this key already.
func (f frontend) taken(t *Table) bool {
	_, served := t.Sets[f.services].Elements[f.key]
	_, refused := t.Sets[f.none].Elements[f.key]
	return served || refused
}

// refuse answers connections to f with verdict.
func (f frontend) refuse(t *Table, verdict string) {
	if !f.taken(t) {
		t.Sets[f.none].Elements[f.key] = verdict
	}
}

// deliver sends connections to f to a chain that the service has of its own.
func (f frontend) deliver(t *Table, verdict string) {
	if !f.taken(t) {
		t.Sets[f.services].Elements[f.key] = verdict
	}
}

// share balances f over targets through the chains and maps that all services share.
func (f frontend) share(b *builder, targets []endpoint, masquerade bool) {
	if f.taken(b.table) {
		return
	}
	count := strconv.Itoa(len(targets))
	chain := f.chain + count
	if _, ok := b.table.Chains[chain]; !ok {
		b.table.Chains[chain] = Chain{Rules: []string{
			"ct mark set numgen random mod " + count,
			fmt.Sprintf("dnat %s to %s . ct mark map @%s", b.ip, f.selector, f.endpoints),
		}}
	}
	if masquerade {
		masked := "masked-" + chain
		b.table.Chains[masked] = Chain{Rules: []string{"jump " + chainMark, "goto " + chain}}
		chain = masked
	}
	b.table.Sets[f.services].Elements[f.key] = "goto " + chain
	slots := b.table.Sets[f.endpoints].Elements
	for i, ep := range targets {
		slots[f.key+" . "+strconv.Itoa(i)] = ep.addr.Addr().String() + " . " + strconv.Itoa(int(ep.addr.Port()))
	}
}

func protocolName(protocol corev1.Protocol) string {
	if protocol == "" {
		return "tcp"
	}
	return strings.ToLower(string(protocol))
}
