package containers

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// parsePort reads Docker's [ip:]host:container[/protocol].
func parsePort(text string) (corev1.ContainerPort, error) {
	wrong := func(why string) (corev1.ContainerPort, error) {
		return corev1.ContainerPort{}, fmt.Errorf("-p %s: %s: want [IP:]HOSTPORT:CONTAINERPORT[/tcp|udp|sctp]", text, why)
	}
	rest, protocol, _ := strings.Cut(text, "/")
	out := corev1.ContainerPort{Protocol: corev1.ProtocolTCP}
	switch strings.ToLower(protocol) {
	case "", "tcp":
	case "udp":
		out.Protocol = corev1.ProtocolUDP
	case "sctp":
		out.Protocol = corev1.ProtocolSCTP
	default:
		return wrong("unknown protocol " + protocol)
	}
	i := strings.LastIndexByte(rest, ':')
	if i < 0 {
		return wrong("no port of the host is chosen for you")
	}
	container, err := parsePortNumber(rest[i+1:])
	if err != nil {
		return wrong(err.Error())
	}
	host := rest[:i]
	if j := strings.LastIndexByte(host, ':'); j >= 0 {
		ip, err := netip.ParseAddr(strings.Trim(host[:j], "[]"))
		if err != nil {
			return wrong(err.Error())
		}
		if !ip.IsUnspecified() {
			out.HostIP = ip.String()
		}
		host = host[j+1:]
	}
	published, err := parsePortNumber(host)
	if err != nil {
		return wrong(err.Error())
	}
	out.ContainerPort, out.HostPort = container, published
	return out, nil
}

func parsePortNumber(text string) (int32, error) {
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%q is no port", text)
	}
	return int32(n), nil
}
