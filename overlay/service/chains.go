package service

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// chainName names a chain or set of one service port. The hash keeps the name
// unique and within nft's limit; the words before it are for whoever reads
// `nft list table`.
func chainName(kind string, svc *corev1.Service, port *corev1.ServicePort, rest ...string) string {
	parts := append([]string{svc.Namespace, svc.Name, port.Name, string(port.Protocol), strconv.Itoa(int(port.Port))}, rest...)
	sum := sha256.Sum256([]byte(strings.Join(parts, "/")))
	readable := svc.Namespace + "/" + svc.Name
	return kind + "-" + hex.EncodeToString(sum[:5]) + "-" + readable[:min(len(readable), 80)]
}

// maskedChain is chain behind the mark for masquerading.
func (b *builder) maskedChain(svc *corev1.Service, port *corev1.ServicePort, chain string) string {
	name := chainName("masked", svc, port)
	b.table.Chains[name] = Chain{Rules: []string{"jump " + chainMark, "goto " + chain}}
	return name
}

// localPolicyChain is for external traffic under the policy Local: what comes from
// outside keeps its source address and goes to endpoints of this host only, or
// nowhere, so that an external load balancer's health check fails over. Traffic of
// pods and of this host is cluster traffic that took the external name.
func (b *builder) localPolicyChain(svc *corev1.Service, port *corev1.ServicePort, found candidates) string {
	name := chainName("external", svc, port)
	inside := b.ownPool(svc, port, "cluster", found.cluster())
	var rules []string
	if pods := b.prefixes(b.in.PodCIDRs); pods != "" {
		rules = append(rules, fmt.Sprintf("%s saddr { %s } goto %s", b.ip, pods, inside))
	}
	rules = append(rules, "fib saddr type local jump "+chainMark, "fib saddr type local goto "+inside)
	if local := found.local(); len(local) > 0 {
		rules = append(rules, "goto "+b.ownPool(svc, port, "local", local))
	} else {
		rules = append(rules, "drop")
	}
	b.table.Chains[name] = Chain{Rules: rules}
	return name
}

// ownPool is a chain of this service port that balances over targets.
func (b *builder) ownPool(svc *corev1.Service, port *corev1.ServicePort, scope string, targets []endpoint) string {
	if svc.Spec.SessionAffinity == corev1.ServiceAffinityClientIP {
		return b.affinityChain(svc, port, scope, targets)
	}
	name := chainName("pool", svc, port, scope)
	slots := make([]string, len(targets))
	for i, ep := range targets {
		slots[i] = fmt.Sprintf("%d : %s . %d", i, ep.addr.Addr(), ep.addr.Port())
	}
	b.table.Chains[name] = Chain{Rules: []string{fmt.Sprintf("meta l4proto %s dnat %s to numgen random mod %d map { %s }",
		protocolName(port.Protocol), b.ip, len(targets), strings.Join(slots, ", "))}}
	return name
}

// affinityChain balances over targets, and keeps a client on the endpoint it had
// until it made no new connection for the service's timeout. Every endpoint has a
// set of its clients; the set goes with the endpoint, and so does the affinity.
func (b *builder) affinityChain(svc *corev1.Service, port *corev1.ServicePort, scope string, targets []endpoint) string {
	name := chainName("affinity", svc, port, scope)
	if _, done := b.table.Chains[name]; done {
		return name // the service has several addresses
	}
	timeout := affinityTimeout(svc)
	var rules, slots []string
	for i, ep := range targets {
		// Not told apart by scope: a client keeps its endpoint whichever way it comes in.
		own := chainName("endpoint", svc, port, ep.addr.String(), timeout.String())
		clients := chainName("clients", svc, port, ep.addr.String(), timeout.String())
		b.table.Sets[clients] = Set{Key: b.addr, Timeout: timeout}
		b.table.Chains[own] = Chain{Rules: []string{
			fmt.Sprintf("update @%s { %s saddr }", clients, b.ip),
			fmt.Sprintf("meta l4proto %s dnat to %s", protocolName(port.Protocol), ep.addr),
		}}
		rules = append(rules, fmt.Sprintf("%s saddr @%s goto %s", b.ip, clients, own))
		slots = append(slots, fmt.Sprintf("%d : goto %s", i, own))
	}
	rules = append(rules, fmt.Sprintf("numgen random mod %d vmap { %s }", len(targets), strings.Join(slots, " , ")))
	b.table.Chains[name] = Chain{Rules: rules}
	return name
}

func affinityTimeout(svc *corev1.Service) time.Duration {
	if c := svc.Spec.SessionAffinityConfig; c != nil && c.ClientIP != nil && c.ClientIP.TimeoutSeconds != nil {
		return time.Duration(*c.ClientIP.TimeoutSeconds) * time.Second
	}
	return time.Duration(corev1.DefaultClientIPServiceAffinitySeconds) * time.Second
}
