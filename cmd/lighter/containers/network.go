package containers

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"lighter.dev/lighter/api/v1alpha1"
)

// NetworkOptions say how a container is reached, and what names mean to it.
type NetworkOptions struct {
	// Kind is a network of Docker's; "" is the cluster's.
	Kind                       string
	Hostname                   string
	Publish, Hosts             []string
	DNS, DNSSearch, DNSOptions []string
}

const networkHost = "host"

func (o NetworkOptions) apply(pod *corev1.Pod, c *corev1.Container) error {
	pod.Spec.Hostname = o.Hostname
	var err error
	if c.Ports, err = parsePorts(o.Publish); err != nil {
		return err
	}
	if pod.Spec.HostAliases, err = parseHosts(o.Hosts); err != nil {
		return err
	}
	if err := o.dns(&pod.Spec); err != nil {
		return err
	}
	switch o.Kind {
	case "", "default", v1alpha1.NetworkBridge, "overlay":
		return nil // all of them are the one network of the cluster
	case networkHost:
		pod.Spec.HostNetwork = true
	case v1alpha1.NetworkNone:
		pod.Annotations[v1alpha1.NetworkAnnotation] = v1alpha1.NetworkNone
	case "macvlan", "ipvlan":
		return fmt.Errorf("--network %s: containers get no address of the hosts' own network: use --network host, or publish ports (-p)", o.Kind)
	default:
		return fmt.Errorf("--network %s: want bridge or overlay (the cluster's network, on which all containers are), host or none", o.Kind)
	}
	if len(c.Ports) > 0 {
		return fmt.Errorf("-p has no meaning with --network %s", o.Kind)
	}
	if o.Kind == networkHost && o.Hostname != "" {
		return errors.New("-h has no meaning with --network host: the host's name is the container's")
	}
	return nil
}

// dns: whoever names servers does not want the cluster's, as with Docker. Domains
// and options alone are added to those of the cluster.
func (o NetworkOptions) dns(spec *corev1.PodSpec) error {
	if len(o.DNS)+len(o.DNSSearch)+len(o.DNSOptions) == 0 {
		return nil
	}
	for _, server := range o.DNS {
		if _, err := netip.ParseAddr(server); err != nil {
			return fmt.Errorf("--dns: %w", err)
		}
	}
	if len(o.DNS) > 0 {
		spec.DNSPolicy = corev1.DNSNone
	}
	spec.DNSConfig = &corev1.PodDNSConfig{Nameservers: o.DNS, Searches: o.DNSSearch}
	for _, text := range o.DNSOptions {
		name, value, given := strings.Cut(text, ":")
		option := corev1.PodDNSConfigOption{Name: name}
		if given {
			option.Value = &value
		}
		spec.DNSConfig.Options = append(spec.DNSConfig.Options, option)
	}
	return nil
}

// parseHosts reads NAME:IP and NAME=IP.
func parseHosts(all []string) ([]corev1.HostAlias, error) {
	var out []corev1.HostAlias
	for _, text := range all {
		i := strings.IndexAny(text, ":=")
		if i < 1 {
			return nil, fmt.Errorf("--add-host %s: want NAME:IP", text)
		}
		ip, err := netip.ParseAddr(strings.Trim(text[i+1:], "[]"))
		if err != nil {
			return nil, fmt.Errorf("--add-host %s: want NAME:IP: %w", text, err)
		}
		out = append(out, corev1.HostAlias{IP: ip.String(), Hostnames: []string{text[:i]}})
	}
	return out, nil
}
