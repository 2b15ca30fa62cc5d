package member

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"lighter.dev/lighter/overlay/netns"
	"lighter.dev/lighter/overlay/vxlan"
)

// Peer is what a node claims about itself in its gossip.
type Peer struct {
	NodeName   string
	UnderlayIP netip.Addr
	VTEPMAC    netns.MAC
	PodCIDR    netip.Prefix // invalid until the node has got one
	AgentPort  uint16       // TCP port of the agent's HTTPS endpoint
}

// Overlay is the part of the claim that the data plane uses.
func (p Peer) Overlay() vxlan.Peer {
	return vxlan.Peer{NodeName: p.NodeName, PodCIDR: p.PodCIDR, VTEPMAC: p.VTEPMAC, UnderlayIP: p.UnderlayIP}
}

// metaVersion is the first byte of an encoded claim.
const metaVersion = 1

// metaMax is memberlist's limit for node metadata, in bytes.
const metaMax = 512

// errMeta says that a claim cannot be read.
var errMeta = errors.New("unreadable node metadata")

// encode is version, MAC (6), port (2), then address, prefix and name, each
// behind its length: 40 bytes and the name for an IPv4 node.
func (p Peer) encode() ([]byte, error) {
	ip, err := p.UnderlayIP.MarshalBinary()
	if err != nil {
		return nil, fmt.Errorf("encode underlay IP: %w", err)
	}
	cidr, err := p.PodCIDR.MarshalBinary()
	if err != nil {
		return nil, fmt.Errorf("encode pod CIDR: %w", err)
	}
	b := append([]byte{metaVersion}, p.VTEPMAC[:]...)
	b = binary.BigEndian.AppendUint16(b, p.AgentPort)
	for _, part := range [][]byte{ip, cidr, []byte(p.NodeName)} {
		if len(part) > 255 {
			return nil, fmt.Errorf("encode node metadata: node name of %d bytes", len(p.NodeName))
		}
		b = append(append(b, byte(len(part))), part...)
	}
	if len(b) > metaMax {
		return nil, fmt.Errorf("encode node metadata: %d bytes, at most %d fit", len(b), metaMax)
	}
	return b, nil
}

func decode(b []byte) (Peer, error) {
	var p Peer
	if len(b) < 9 || b[0] != metaVersion {
		return p, fmt.Errorf("%w: %d bytes", errMeta, len(b))
	}
	p.VTEPMAC = netns.MAC(b[1:7])
	p.AgentPort = binary.BigEndian.Uint16(b[7:9])
	b = b[9:]
	var parts [3][]byte
	for i := range parts {
		if len(b) == 0 || len(b) < 1+int(b[0]) {
			return Peer{}, fmt.Errorf("%w: cut short", errMeta)
		}
		parts[i], b = b[1:1+int(b[0])], b[1+int(b[0]):]
	}
	err := errors.Join(p.UnderlayIP.UnmarshalBinary(parts[0]), p.PodCIDR.UnmarshalBinary(parts[1]))
	if err != nil {
		return Peer{}, fmt.Errorf("%w: %w", errMeta, err)
	}
	p.NodeName = string(parts[2])
	return p, nil
}
