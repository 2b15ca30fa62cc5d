package vxlan

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"lighter.dev/lighter/overlay/ipam"
	"lighter.dev/lighter/overlay/netns"
)

// Annotations of a Node by which its agent tells the others where its VTEP is.
// The agent of that node is their only writer.
const (
	AnnotationVTEPMAC    = "lighter.dev/vtep-mac"
	AnnotationUnderlayIP = "lighter.dev/underlay-ip"
)

// Peer is another node, as the data plane needs it.
type Peer struct {
	NodeName   string       `json:"nodeName"`
	PodCIDR    netip.Prefix `json:"podCIDR"`
	VTEPMAC    netns.MAC    `json:"vtepMAC"`
	UnderlayIP netip.Addr   `json:"underlayIP"`
}

// vtep is the address of the peer's VXLAN device, the next hop to its pods.
func (p Peer) vtep() netip.Addr { return ipam.VTEP(p.PodCIDR) }

// ErrNotReady says that a Node does not carry all of a peer's facts yet.
var ErrNotReady = errors.New("node is not in the overlay yet")

// PeerOf reads a peer from its Node object, the durable source.
func PeerOf(node *corev1.Node) (Peer, error) {
	p := Peer{NodeName: node.Name}
	mac, ip := node.Annotations[AnnotationVTEPMAC], node.Annotations[AnnotationUnderlayIP]
	if node.Spec.PodCIDR == "" || mac == "" || ip == "" {
		return Peer{}, fmt.Errorf("node %s: spec.podCIDR %q, %s %q, %s %q: %w", node.Name,
			node.Spec.PodCIDR, AnnotationVTEPMAC, mac, AnnotationUnderlayIP, ip, ErrNotReady)
	}
	var errs [3]error
	p.PodCIDR, errs[0] = netip.ParsePrefix(node.Spec.PodCIDR)
	p.VTEPMAC, errs[1] = netns.ParseMAC(mac)
	p.UnderlayIP, errs[2] = netip.ParseAddr(ip)
	if err := errors.Join(errs[:]...); err != nil {
		return Peer{}, fmt.Errorf("node %s: %w", node.Name, err)
	}
	p.PodCIDR, p.UnderlayIP = p.PodCIDR.Masked(), p.UnderlayIP.Unmap()
	return p, nil
}

// MACForNode is a node's VTEP MAC: locally administered, unicast, and the same
// after every restart and on every re-creation of the device, since it follows
// from the node's name.
func MACForNode(name string) netns.MAC {
	sum := sha256.Sum256([]byte("lighter vtep " + name))
	mac := netns.MAC(sum[:6])
	mac[0] = mac[0]&^1 | 2
	return mac
}

// settle drops this node and peers that clash with it or with one another
// (overlapping pod CIDRs, one VTEP MAC twice): the first by name wins, so that
// all nodes decide alike. Each refusal is told once by the caller.
func settle(self Peer, peers []Peer) (accepted []Peer, refused []string) {
	peers = slices.Clone(peers)
	slices.SortFunc(peers, func(a, b Peer) int { return strings.Compare(a.NodeName, b.NodeName) })
	for _, p := range peers {
		if p.NodeName == self.NodeName {
			continue
		}
		rivals := append([]Peer{self}, accepted...)
		i := slices.IndexFunc(rivals, func(r Peer) bool {
			return r.PodCIDR.Overlaps(p.PodCIDR) || r.VTEPMAC == p.VTEPMAC || r.UnderlayIP == p.UnderlayIP
		})
		if i >= 0 {
			refused = append(refused, fmt.Sprintf("node %s (%s, %s, %s) clashes with node %s (%s, %s, %s)", p.NodeName,
				p.PodCIDR, p.VTEPMAC, p.UnderlayIP, rivals[i].NodeName, rivals[i].PodCIDR, rivals[i].VTEPMAC, rivals[i].UnderlayIP))
			continue
		}
		accepted = append(accepted, p)
	}
	return accepted, refused
}
