package attach

import (
	"net/netip"

	corev1 "k8s.io/api/core/v1"
)

// Sandbox is a pod's network namespace as the network sees it.
type Sandbox struct {
	PodUID, PodNamespace, PodName string
	// NetNS is the path of the pinned network namespace.
	NetNS string
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
