package netns

import (
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
)

// MAC is an IEEE 802 MAC-48 address. Unlike net.HardwareAddr it can be compared.
type MAC [6]byte

// ParseMAC reads the colon-separated form.
func ParseMAC(s string) (MAC, error) {
	hw, err := net.ParseMAC(s)
	if err != nil {
		return MAC{}, fmt.Errorf("parse MAC %q: %w", s, err)
	}
	if len(hw) != 6 {
		return MAC{}, fmt.Errorf("parse MAC %q: %d bytes, want 6", s, len(hw))
	}
	return MAC(hw), nil
}

// MACFromIPv4 is the address that the CNI plugins give an interface with this
// IPv4 address (0a:58 + the four bytes). Because it follows from the address,
// a neighbour entry that outlived a pod is right for the next one too.
func MACFromIPv4(ip netip.Addr) MAC {
	b := ip.Unmap().As4()
	return MAC{0x0a, 0x58, b[0], b[1], b[2], b[3]}
}

// IsZero says that no address is set.
func (m MAC) IsZero() bool { return m == MAC{} }

// String is the colon-separated form.
func (m MAC) String() string { return net.HardwareAddr(m[:]).String() }

// GoString makes test output readable.
func (m MAC) GoString() string { return "MAC(" + hex.EncodeToString(m[:]) + ")" }

func (m MAC) hardwareAddr() net.HardwareAddr {
	if m.IsZero() {
		return nil
	}
	return net.HardwareAddr(m[:])
}

// Kind is the kernel's name of a link type (IFLA_INFO_KIND).
type Kind string

// The kinds that the overlay makes. Others are read as the kernel names them.
const (
	KindBridge  Kind = "bridge"
	KindVeth    Kind = "veth"
	KindVXLAN   Kind = "vxlan"
	KindMacvlan Kind = "macvlan"
)

// Link is a network device.
type Link struct {
	Index int
	Name  string
	Kind  Kind
	MAC   MAC
	MTU   int // bytes, without the link header
	Up    bool
	// Master is the index of the bridge this is a port of, 0 for none.
	Master int
	// Parent is the index of the device below (vxlan, macvlan) or of the other
	// end (veth; meaningless when that is in another namespace), 0 for none.
	Parent int
	// VXLAN is set for KindVXLAN.
	VXLAN VXLAN
}

// VXLAN are the attributes of a VXLAN device (RFC 7348) that cannot be changed
// after its creation.
type VXLAN struct {
	VNI      int
	Port     uint16     // UDP destination port
	Local    netip.Addr // source address of the outer packets
	Learning bool       // learn forwarding entries from received packets
}

// Veth describes a pair whose other end is born in another namespace.
type Veth struct {
	Name   string
	MAC    MAC // zero: the kernel picks
	MTU    int // of both ends
	Master int // index of a bridge, 0 for none
	Peer   Peer
}

// Macvlan describes a macvlan in bridge mode, born in another namespace.
type Macvlan struct {
	Parent int // index of the link in this namespace
	MTU    int // 0: the parent's
	Peer   Peer
}

// Peer is the end of a link that lives in another namespace.
type Peer struct {
	NS   Kernel
	Name string
	MAC  MAC // zero: the kernel picks
}

// BridgePort are the switches of a bridge port.
type BridgePort struct {
	// Isolated ports reach the bridge itself and ports that are not isolated.
	Isolated bool
	// Hairpin sends a frame back out of the port it came in by.
	Hairpin bool
	// Learning takes forwarding entries from received frames.
	Learning bool
	// Flood sends frames for unknown unicast addresses to this port.
	Flood bool
}

// Route is an entry of the main routing table.
type Route struct {
	Dst     netip.Prefix
	Gateway netip.Addr // invalid: the destination is on the link
	Link    int
	Src     netip.Addr // preferred source address; invalid: the kernel picks
	Onlink  bool       // the gateway need not be covered by a connected route
	// Protocol says who made it (RTPROT_*): 2 is the kernel, ProtocolLighter is us.
	Protocol int
}

// ProtocolLighter marks routes as ours (rtnetlink(7) leaves numbers above 4 to users).
const ProtocolLighter = 76

// protocolKernel is RTPROT_KERNEL: routes that follow from an address.
const protocolKernel = 2

// FromKernel says that the route follows from an address and is not ours to touch.
func (r Route) FromKernel() bool { return r.Protocol == protocolKernel }

// String is what ip-route(8) would print.
func (r Route) String() string {
	s := r.Dst.String()
	if r.Gateway.IsValid() {
		s += " via " + r.Gateway.String()
	}
	if r.Src.IsValid() {
		s += " src " + r.Src.String()
	}
	if r.Onlink {
		s += " onlink"
	}
	return s
}

// Neighbour is a permanent ARP or NDP entry.
type Neighbour struct {
	Link int
	IP   netip.Addr
	MAC  MAC
}

// FDBEntry is a permanent forwarding entry: on a VXLAN device it names the
// remote VTEP for a MAC, on a bridge port (Remote invalid) it pins the MAC to it.
type FDBEntry struct {
	Link   int
	MAC    MAC
	Remote netip.Addr
}

// MarshalText makes MACs readable in JSON.
func (m MAC) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText reads the colon-separated form.
func (m *MAC) UnmarshalText(b []byte) error {
	mac, err := ParseMAC(string(b))
	*m = mac
	return err
}
