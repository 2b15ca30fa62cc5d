package containers

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Ports of the host that nobody named come from the dynamic ones (RFC 6335), in
// which there are no Services' node ports. Which of them are free on the host is not
// known here: the scheduler looks for a host on which they are.
const (
	firstDynamicPort = 49152
	lastDynamicPort  = 65535
)

// parsePorts reads all of -p.
func parsePorts(all []string) ([]corev1.ContainerPort, error) {
	var out []corev1.ContainerPort
	taken := map[int32]bool{}
	for _, text := range all {
		ports, err := parsePort(text, taken)
		if err != nil {
			return nil, fmt.Errorf("-p %s: %w: want [[IP:]HOSTPORT[-LAST]:]PORT[-LAST][/tcp|udp|sctp]", text, err)
		}
		out = append(out, ports...)
	}
	return out, nil
}

// choosesPorts: one of -p leaves it to us which port of the host it is.
func (o NetworkOptions) choosesPorts() bool {
	for _, text := range o.Publish {
		_, host, container, _ := cutPort(text)
		if host.first != host.last && container.first == container.last || host.first == 0 {
			return true
		}
	}
	return false
}

// parsePort reads one. Ports that it chooses are not among those taken, to which
// it adds them.
func parsePort(text string, taken map[int32]bool) ([]corev1.ContainerPort, error) {
	rest, protocolText, _ := strings.Cut(text, "/")
	protocol, err := parseProtocol(protocolText)
	if err != nil {
		return nil, err
	}
	ip, host, container, err := cutPort(rest)
	if err != nil {
		return nil, err
	}
	if n := host.len(); n > 1 && container.len() > 1 && n != container.len() {
		return nil, fmt.Errorf("%d ports of the host for %d of the container", n, container.len())
	}
	var out []corev1.ContainerPort
	for i := range container.len() {
		port := corev1.ContainerPort{Protocol: protocol, HostIP: ip, ContainerPort: container.first + i}
		switch {
		case host.first == 0:
			port.HostPort = choose(portRange{firstDynamicPort, lastDynamicPort}, taken)
		case host.len() > container.len():
			port.HostPort = choose(host, taken)
		case host.len() < container.len():
			return nil, fmt.Errorf("one port of the host for %d of the container", container.len())
		default:
			port.HostPort = host.first + i
		}
		taken[port.HostPort] = true
		out = append(out, port)
	}
	return out, nil
}

func parseProtocol(text string) (corev1.Protocol, error) {
	switch strings.ToLower(text) {
	case "", "tcp":
		return corev1.ProtocolTCP, nil
	case "udp":
		return corev1.ProtocolUDP, nil
	case "sctp":
		return corev1.ProtocolSCTP, nil
	}
	return "", fmt.Errorf("unknown protocol %s", text)
}

// portRange has both ends; the zero value is left to us.
type portRange struct{ first, last int32 }

func (r portRange) len() int32 { return r.last - r.first + 1 }

// cutPort takes [[IP:]HOST:]CONTAINER apart. ip is "" for all addresses.
func cutPort(text string) (ip string, host, container portRange, err error) {
	text, _, _ = strings.Cut(text, "/")
	i := strings.LastIndexByte(text, ':')
	if container, err = parsePortRange(text[i+1:]); err != nil || i < 0 {
		return "", host, container, err
	}
	hostText := text[:i]
	if j := strings.LastIndexByte(hostText, ':'); j >= 0 {
		addr, err := netip.ParseAddr(strings.Trim(hostText[:j], "[]"))
		if err != nil {
			return "", host, container, err
		}
		if !addr.IsUnspecified() {
			ip = addr.String()
		}
		hostText = hostText[j+1:]
	}
	if hostText != "" {
		host, err = parsePortRange(hostText)
	}
	return ip, host, container, err
}

func parsePortRange(text string) (portRange, error) {
	first, last, ranged := strings.Cut(text, "-")
	if !ranged {
		last = first
	}
	from, fromErr := strconv.ParseUint(first, 10, 16)
	to, toErr := strconv.ParseUint(last, 10, 16)
	if fromErr != nil || toErr != nil || from == 0 || to < from {
		return portRange{}, fmt.Errorf("%q is no port", text)
	}
	return portRange{int32(from), int32(to)}, nil
}

// choose picks one that is not taken, if there is one.
func choose(from portRange, taken map[int32]bool) int32 {
	start := rand.Int32N(from.len())
	for i := range from.len() {
		if port := from.first + (start+i)%from.len(); !taken[port] {
			return port
		}
	}
	return from.first + start // the API will say that it is there twice
}
