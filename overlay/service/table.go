package service

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"sigs.k8s.io/knftables"
)

const (
	// TableName is the nftables table that this package owns, in the families ip and ip6.
	TableName = "lighter-service"
	// MasqueradeMark is the packet mark bit (nfmark) of packets whose source is to be
	// replaced by the host's address. It is cleared when that happened, because a
	// tunnel's outer packet would inherit it. The bit is the one kube-proxy uses.
	MasqueradeMark = 0x4000
)

// Names of chains, maps and sets that are always there.
const (
	chainServices   = "services"
	chainMark       = "mark-for-masquerade"
	chainMasquerade = "masquerading"
	chainRefuse     = "refuse"
	chainCheck      = "no-endpoints-check"
	chainClusterIPs = "cluster-ips-check"

	mapServices          = "service-ips"
	mapNodePorts         = "service-nodeports"
	mapEndpoints         = "endpoints"
	mapNodePortEndpoints = "nodeport-endpoints"
	mapNoEndpoints       = "no-endpoints"
	mapNoNodePorts       = "no-endpoint-nodeports"
	setClusterIPs        = "cluster-ips"
	setHairpin           = "hairpin"
)

// Table is the wanted or applied content of one nftables table, as plain data.
type Table struct {
	Family knftables.Family
	Chains map[string]Chain
	Sets   map[string]Set
}

// Chain is a chain with all its rules, in nft syntax.
type Chain struct {
	Base  *Base // nil for a chain that is only jumped to
	Rules []string
}

// Base attaches a chain to a netfilter hook.
type Base struct {
	Type     knftables.BaseChainType
	Hook     knftables.BaseChainHook
	Priority string
}

// Set is an nft set, or a map if Value is given.
type Set struct {
	Key, Value string // data types; Value is empty for a set
	// Timeout makes the set one that packets fill: its elements belong to the
	// kernel and expire Timeout after their last use. Elements is then empty.
	Timeout  time.Duration
	Elements map[string]string // key → value ("" in a set)
}

// proto is what differs between the table for IPv4 and the one for IPv6.
type proto struct {
	family   knftables.Family
	ip       string // the nft keyword
	addr     string // the nft data type
	loopback netip.Prefix
	bits     int
}

var (
	protoV4 = proto{family: knftables.IPv4Family, ip: "ip", addr: "ipv4_addr",
		loopback: netip.MustParsePrefix("127.0.0.0/8"), bits: 32}
	protoV6 = proto{family: knftables.IPv6Family, ip: "ip6", addr: "ipv6_addr",
		loopback: netip.MustParsePrefix("::1/128"), bits: 128}
)

func protoOf(family knftables.Family) proto {
	if family == knftables.IPv6Family {
		return protoV6
	}
	return protoV4
}

// has tells whether addr belongs to this family.
func (p proto) has(addr netip.Addr) bool { return addr.IsValid() && addr.BitLen() == p.bits }

// skeleton is the table of a cluster without services.
func (p proto) skeleton(podCIDRs []netip.Prefix) *Table {
	t := &Table{Family: p.family, Chains: map[string]Chain{}, Sets: map[string]Set{}}
	service := p.addr + " . inet_proto . inet_service"
	endpoint := p.addr + " . inet_service"
	for name, set := range map[string]Set{
		mapServices:          {Key: service, Value: "verdict"},
		mapNodePorts:         {Key: "inet_proto . inet_service", Value: "verdict"},
		mapEndpoints:         {Key: service + " . mark", Value: endpoint},
		mapNodePortEndpoints: {Key: "inet_proto . inet_service . mark", Value: endpoint},
		mapNoEndpoints:       {Key: service, Value: "verdict"},
		mapNoNodePorts:       {Key: "inet_proto . inet_service", Value: "verdict"},
		setClusterIPs:        {Key: p.addr},
		setHairpin:           {Key: p.addr + " . " + p.addr},
	} {
		set.Elements = map[string]string{}
		t.Sets[name] = set
	}
	p.addHooks(t)
	p.addFixedChains(t, podCIDRs)
	return t
}

// addHooks adds the base chains. The filter hooks run after DNAT, so that a packet
// still addressed to a service there is one that no endpoint took.
func (p proto) addHooks(t *Table) {
	hook := func(name string, base Base, rules ...string) {
		t.Chains[name] = Chain{Base: &base, Rules: rules}
	}
	const dnat, snat, afterDNAT = "-100", "100", "-90"
	hook("nat-prerouting", Base{knftables.NATType, knftables.PreroutingHook, dnat}, "jump "+chainServices)
	hook("nat-output", Base{knftables.NATType, knftables.OutputHook, dnat}, "jump "+chainServices)
	hook("nat-postrouting", Base{knftables.NATType, knftables.PostroutingHook, snat}, "jump "+chainMasquerade)
	hook("filter-input", Base{knftables.FilterType, knftables.InputHook, afterDNAT},
		"ct state new jump "+chainCheck)
	for _, name := range []knftables.BaseChainHook{knftables.ForwardHook, knftables.OutputHook} {
		hook("filter-"+string(name), Base{knftables.FilterType, name, afterDNAT},
			"ct state new jump "+chainCheck, "ct state new jump "+chainClusterIPs)
	}
}

// addFixedChains adds the chains that are the same for all services.
func (p proto) addFixedChains(t *Table, podCIDRs []netip.Prefix) {
	key := p.ip + " daddr . meta l4proto . th dport"
	local := fmt.Sprintf("fib daddr type local %s daddr != %s meta l4proto . th dport", p.ip, p.loopback)
	var services []string
	// A source that is no pod (the host itself, a machine outside) may have an
	// address to which the endpoint's answer would not come back through us.
	services = append(services, fmt.Sprintf("%s daddr @%s %sjump %s",
		p.ip, setClusterIPs, p.notFrom(podCIDRs), chainMark))
	services = append(services, key+" vmap @"+mapServices, local+" vmap @"+mapNodePorts)
	t.Chains[chainServices] = Chain{Rules: services}
	t.Chains[chainMark] = Chain{Rules: []string{fmt.Sprintf("meta mark set meta mark or %#x", MasqueradeMark)}}
	t.Chains[chainMasquerade] = Chain{Rules: []string{
		fmt.Sprintf("%s saddr . %s daddr @%s masquerade fully-random", p.ip, p.ip, setHairpin),
		fmt.Sprintf("meta mark & %#x == 0 return", MasqueradeMark),
		fmt.Sprintf("meta mark set meta mark xor %#x", MasqueradeMark),
		"masquerade fully-random",
	}}
	t.Chains[chainCheck] = Chain{Rules: []string{key + " vmap @" + mapNoEndpoints, local + " vmap @" + mapNoNodePorts}}
	t.Chains[chainClusterIPs] = Chain{Rules: []string{fmt.Sprintf("%s daddr @%s goto %s", p.ip, setClusterIPs, chainRefuse)}}
	// Both make connect(2) fail with ECONNREFUSED at once instead of timing out.
	t.Chains[chainRefuse] = Chain{Rules: []string{"meta l4proto tcp reject with tcp reset", "reject"}}
}

// notFrom is the match for sources outside the pod network; without a known pod
// network nothing can be told apart, and nothing is masqueraded.
func (p proto) notFrom(podCIDRs []netip.Prefix) string {
	own := p.prefixes(podCIDRs)
	if own == "" {
		return "meta mark & 0 != 0 "
	}
	return fmt.Sprintf("%s saddr != { %s } ", p.ip, own)
}

// prefixes joins the prefixes of this family for an anonymous set.
func (p proto) prefixes(all []netip.Prefix) string {
	var own []string
	for _, prefix := range all {
		if p.has(prefix.Addr()) {
			own = append(own, prefix.Masked().String())
		}
	}
	return strings.Join(own, ", ")
}
