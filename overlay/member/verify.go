package member

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"lighter.dev/lighter/overlay/vxlan"
)

// Verifier decides whether a claim counts.
type Verifier interface {
	// Verify returns why the claim does not count, nil if it does.
	Verify(Peer) error
}

// NodeVerifier holds claims against Node objects: whoever has the gossip key
// can claim anything, but only a node's own agent and the control plane can
// write its Node object. get is a lister's Get.
func NodeVerifier(get func(name string) (*corev1.Node, error)) Verifier { return nodeVerifier{get} }

type nodeVerifier struct {
	get func(name string) (*corev1.Node, error)
}

func (v nodeVerifier) Verify(claim Peer) error {
	node, err := v.get(claim.NodeName)
	if err != nil {
		return fmt.Errorf("its Node object: %w", err)
	}
	truth, err := vxlan.PeerOf(node)
	if err != nil {
		return err
	}
	if got := claim.Overlay(); got != truth {
		return fmt.Errorf("it claims pod CIDR %s, VTEP %s, underlay %s; its Node object says %s, %s, %s",
			got.PodCIDR, got.VTEPMAC, got.UnderlayIP, truth.PodCIDR, truth.VTEPMAC, truth.UnderlayIP)
	}
	return nil
}
