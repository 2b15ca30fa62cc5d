package attach

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"sigs.k8s.io/knftables"

	"lighter.dev/lighter/overlay/netns"
)

// tableName is ours alone; services have their own table.
const tableName = "lighter-attach"

// openTable opens the table in the namespace of k. Programs started by the
// library are born in the calling thread's namespace.
func openTable(k netns.Kernel) (knftables.Interface, error) {
	host, ok := k.(*netns.Real)
	if !ok {
		return nil, errors.New("no nftables in a namespace that is not the kernel's")
	}
	var nft knftables.Interface
	err := host.Do(func() (err error) {
		nft, err = knftables.New(knftables.IPv4Family, tableName)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open nftables: %w", err)
	}
	return &tableIn{Interface: nft, ns: host}, nil
}

// tableIn runs the two calls that this package needs inside the namespace.
type tableIn struct {
	knftables.Interface
	ns *netns.Real
}

func (t *tableIn) Run(ctx context.Context, tx *knftables.Transaction) error {
	return t.ns.Do(func() error { return t.Interface.Run(ctx, tx) })
}

func (t *tableIn) List(ctx context.Context, objects string) (names []string, err error) {
	err = t.ns.Do(func() error {
		names, err = t.Interface.List(ctx, objects)
		return err
	})
	return names, err
}

// rules keeps the table as the records want it. Every change renders the whole
// table and replaces it in one transaction: there is one code path, the result
// does not depend on history, and the packet path never sees a half of it.
type rules struct {
	cfg     Config
	mu      sync.Mutex
	applied string
}

// sync applies the table for these records. check also looks whether something
// else removed it.
func (r *rules) sync(ctx context.Context, records []record, check bool) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	tx := r.cfg.NFT.NewTransaction()
	r.render(tx, records)
	text := tx.String()
	if r.applied == text {
		if !check {
			return nil
		}
		chains, err := r.cfg.NFT.List(ctx, "chain")
		if err == nil && len(chains) == chainCount {
			return nil
		}
		r.cfg.Log.Warn("nftables table was changed by something else, putting it back", "table", tableName)
	}
	if err := r.cfg.NFT.Run(ctx, tx); err != nil {
		r.applied = ""
		return fmt.Errorf("write nftables table %s: %w", tableName, err)
	}
	r.applied = text
	return nil
}

func (r *rules) remove(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	tx := r.cfg.NFT.NewTransaction()
	tx.Add(&knftables.Table{})
	tx.Delete(&knftables.Table{})
	r.applied = ""
	if err := r.cfg.NFT.Run(ctx, tx); err != nil {
		return fmt.Errorf("remove nftables table %s: %w", tableName, err)
	}
	return nil
}

// Names within the table.
const (
	mapAny     = "hostports"    // protocol . port : pod . port
	mapIP      = "hostports-ip" // host IP . protocol . port : pod . port
	setHairpin = "hairpin"      // pod . pod, of pods with published ports
	chainPorts = "publish"      // looks the maps up
	chainPre   = "nat-prerouting"
	chainOut   = "nat-output"
	chainPost  = "nat-postrouting"
	chainRaw   = "raw-prerouting"
	chainRawO  = "raw-output"
	chainCount = 6
)

// render writes the whole table.
func (r *rules) render(tx *knftables.Transaction, records []record) {
	tx.Add(&knftables.Table{Comment: knftables.PtrTo("pods' addresses and published ports")})
	tx.Add(&knftables.Map{Name: mapAny, Type: "inet_proto . inet_service : ipv4_addr . inet_service"})
	tx.Add(&knftables.Map{Name: mapIP, Type: "ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service"})
	tx.Add(&knftables.Set{Name: setHairpin, Type: "ipv4_addr . ipv4_addr"})
	tx.Flush(&knftables.Map{Name: mapAny})
	tx.Flush(&knftables.Map{Name: mapIP})
	tx.Flush(&knftables.Set{Name: setHairpin})
	r.chain(tx, chainPorts, "", "", "")
	r.chain(tx, chainPre, knftables.NATType, knftables.PreroutingHook, knftables.DNATPriority)
	r.chain(tx, chainOut, knftables.NATType, knftables.OutputHook, knftables.DNATPriority)
	r.chain(tx, chainPost, knftables.NATType, knftables.PostroutingHook, knftables.SNATPriority)
	r.chain(tx, chainRaw, knftables.FilterType, knftables.PreroutingHook, knftables.RawPriority)
	r.chain(tx, chainRawO, knftables.FilterType, knftables.OutputHook, knftables.RawPriority)
	for _, rule := range r.rules() {
		tx.Add(&rule)
	}
	for _, rec := range records {
		renderPorts(tx, rec)
	}
}

// chain adds a chain and empties it.
func (r *rules) chain(tx *knftables.Transaction, name string, t knftables.BaseChainType, h knftables.BaseChainHook, p knftables.BaseChainPriority) {
	c := knftables.Chain{Name: name}
	if t != "" {
		c.Type, c.Hook, c.Priority = &t, &h, &p
	}
	tx.Add(&c)
	tx.Flush(&knftables.Chain{Name: name})
}

func (r *rules) rules() []knftables.Rule {
	rule := func(chain, comment string, parts ...any) knftables.Rule {
		return knftables.Rule{Chain: chain, Rule: knftables.Concat(parts...), Comment: knftables.PtrTo(comment)}
	}
	c := r.cfg
	return []knftables.Rule{
		// The packets to a host port are those to an address of this host.
		rule(chainPre, "published ports", "fib daddr type local jump", chainPorts),
		rule(chainOut, "published ports, from this host", "fib daddr type local jump", chainPorts),
		rule(chainPorts, "with a host IP", "dnat to ip daddr . meta l4proto . th dport map", "@", mapIP),
		rule(chainPorts, "on all addresses", "dnat to meta l4proto . th dport map", "@", mapAny),

		rule(chainPost, "a pod to itself by its published port", "ip saddr . ip daddr", "@", setHairpin, "masquerade"),
		rule(chainPost, "published port by loopback", "oifname", c.Bridge, "ip saddr 127.0.0.0/8 masquerade"),
		rule(chainPost, "multicast is never translated", "ip daddr 224.0.0.0/4 return"),
		rule(chainPost, "pods to the world", "ip saddr", c.PodCIDR, "ip daddr !=", c.ClusterCIDR, "masquerade fully-random"),
		rule(chainPost, "this host to remote pods, so that the reply comes back by the overlay",
			"oifname", c.Overlay, "ip saddr !=", c.ClusterCIDR, "masquerade fully-random"),

		// route_localnet on the bridge is for replies to published ports that were
		// reached by loopback; their destination is not loopback yet at this hook.
		// A pod that sends to loopback itself must not reach the host's (CVE-2020-8558).
		rule(chainRaw, "no loopback addresses from pods", "ip daddr 127.0.0.0/8 iifname", c.Bridge, "drop"),
		rule(chainRaw, "no loopback addresses from pods", "ip saddr 127.0.0.0/8 iifname", c.Bridge, "drop"),
		// Outer packets need no tracking: they are never translated, and tracking
		// each twice costs throughput.
		rule(chainRaw, "VXLAN is not tracked", "udp dport", c.OverlayPort, "notrack"),
		rule(chainRawO, "VXLAN is not tracked", "udp dport", c.OverlayPort, "notrack"),
	}
}

func renderPorts(tx *knftables.Transaction, rec record) {
	if len(rec.Sandbox.Ports) == 0 {
		return
	}
	comment := knftables.PtrTo(rec.Sandbox.PodNamespace + "/" + rec.Sandbox.PodName)
	if len(*comment) > knftables.CommentLengthMax {
		comment = knftables.PtrTo(rec.Sandbox.PodUID)
	}
	ip := rec.IP.String()
	for _, p := range rec.Sandbox.Ports {
		e := &knftables.Element{
			Map: mapAny, Key: []string{p.nftProto(), fmt.Sprint(p.HostPort)},
			Value: []string{ip, fmt.Sprint(p.ContainerPort)}, Comment: comment,
		}
		if !p.anyIP() {
			e.Map, e.Key = mapIP, append([]string{p.HostIP.Unmap().String()}, e.Key...)
		}
		tx.Add(e)
	}
	tx.Add(&knftables.Element{Set: setHairpin, Key: []string{ip, ip}, Comment: comment})
}
