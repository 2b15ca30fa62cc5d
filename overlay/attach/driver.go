package attach

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// ErrNotAttached says that a sandbox has no (complete) attachment.
var ErrNotAttached = errors.New("not attached")

// Driver attaches pods to one kind of network. The suite in attach/attachtest
// holds for every driver.
type Driver interface {
	// Attach connects the sandbox. Repeated, it mends what is missing and returns
	// the same result. When it fails it leaves nothing behind.
	Attach(ctx context.Context, s Sandbox) (Result, error)
	// Detach undoes Attach, also one that was half done or never done, and also
	// when the namespace is gone. Only the PodUID of s is needed.
	Detach(ctx context.Context, s Sandbox) error
	// Status is Attach's result, or ErrNotAttached when that would have work to do.
	Status(ctx context.Context, s Sandbox) (Result, error)
	// Keep detaches every pod but these: what crashes left over.
	Keep(ctx context.Context, podUIDs []string) error
}

// PortConflictError says who holds a published port.
type PortConflictError struct {
	Port   Port
	Holder string // "pod <namespace>/<name>", or "another process on the host"
}

// Error names the port and its holder.
func (e *PortConflictError) Error() string {
	return fmt.Sprintf("host port %s is in use by %s", e.Port, e.Holder)
}

// String is protocol, address and port: "TCP 0.0.0.0:8080".
func (p Port) String() string {
	ip := p.HostIP
	if p.anyIP() {
		ip = netip.IPv4Unspecified()
	}
	return fmt.Sprintf("%s %s", p.proto(), netip.AddrPortFrom(ip, p.HostPort))
}

func (p Port) proto() corev1.Protocol {
	if p.Protocol == "" {
		return corev1.ProtocolTCP
	}
	return p.Protocol
}

// nftProto is the name of the protocol in nft(8).
func (p Port) nftProto() string { return strings.ToLower(string(p.proto())) }

func (p Port) anyIP() bool { return !p.HostIP.IsValid() || p.HostIP.IsUnspecified() }

// clashes says whether two ports cannot both be published.
func (p Port) clashes(o Port) bool {
	return p.HostPort == o.HostPort && p.proto() == o.proto() && (p.anyIP() || o.anyIP() || p.HostIP == o.HostIP)
}

func (p Port) check() error {
	switch p.proto() {
	case corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP:
	default:
		return fmt.Errorf("host port %d: protocol %q: want TCP, UDP or SCTP", p.HostPort, p.Protocol)
	}
	if p.HostPort == 0 || p.ContainerPort == 0 {
		return fmt.Errorf("host port %d to container port %d: both must be set", p.HostPort, p.ContainerPort)
	}
	if !p.anyIP() && !p.HostIP.Unmap().Is4() {
		return fmt.Errorf("host port %d: host IP %s: only IPv4 is supported", p.HostPort, p.HostIP)
	}
	return nil
}
