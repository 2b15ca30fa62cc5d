package attach

import (
	"net/netip"

	corev1 "k8s.io/api/core/v1"
)

// Sandbox is a pod's network namespace as the network sees it.
type Sandbox struct {
	PodUID, PodNamespace, PodName string
	// NetNS is the path of the pinned network namespace; empty means the host's own.
	NetNS string
	// Network names the driver to use. Empty means KindBridge, or KindHost when
	// NetNS is empty.
	Network Kind
	// Ports are the published ports (hostPort set), of all containers.
	Ports []Port
}

// Port publishes ContainerPort of the pod as HostIP:HostPort on the host.
type Port struct {
	Protocol                corev1.Protocol
	HostIP                  netip.Addr // the zero Addr means all addresses
	HostPort, ContainerPort uint16
}

// Result is what the pod got.
type Result struct {
	// IPs are the pod's addresses, the primary one first.
	IPs []netip.Addr
}

// Kind names a way to attach a pod to a network.
type Kind string

// The kinds that are built in.
const (
	KindBridge  Kind = "bridge"  // veth to the host's bridge, over VXLAN to the other hosts
	KindHost    Kind = "host"    // the host's own namespace
	KindNone    Kind = "none"    // loopback only
	KindMacvlan Kind = "macvlan" // a device of its own on the underlay's network
)
