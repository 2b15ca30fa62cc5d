package containers

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Port prints where a container's ports are published: all of them, or the one
// that is named, as PORT[/PROTOCOL]. What is published on all addresses of a host
// is said to be at the one by which the cluster knows the host.
func (c *Cluster) Port(ctx context.Context, name, wanted string) error {
	pod, err := c.find(ctx, name)
	if err != nil {
		return err
	}
	number, protocolText, _ := strings.Cut(wanted, "/")
	protocol, err := parseProtocol(protocolText)
	if err != nil {
		return fmt.Errorf("port %s: %w", wanted, err)
	}
	found := false
	for i := range pod.Spec.Containers {
		for _, p := range pod.Spec.Containers[i].Ports {
			one := strconv.Itoa(int(p.ContainerPort)) == number && cmp.Or(p.Protocol, corev1.ProtocolTCP) == protocol
			if p.HostPort == 0 || wanted != "" && !one {
				continue
			}
			found = true
			at := net.JoinHostPort(cmp.Or(p.HostIP, pod.Status.HostIP, "0.0.0.0"), strconv.Itoa(int(p.HostPort)))
			if wanted != "" {
				fmt.Fprintln(c.Out, at)
			} else {
				fmt.Fprintf(c.Out, "%d/%s -> %s\n", p.ContainerPort, strings.ToLower(string(p.Protocol)), at)
			}
		}
	}
	if wanted != "" && !found {
		return fmt.Errorf("port %s of container %s is not published", wanted, name)
	}
	return nil
}
