package pod

import (
	"bufio"
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"lighter.dev/lighter/agent/runtime"
)

// writeFiles writes the pod's /etc/hosts, /etc/hostname and /etc/resolv.conf.
func (w *worker) writeFiles(pod *corev1.Pod, ips []netip.Addr) error {
	dir := filepath.Join(w.cfg.Volumes.PodDir(pod.UID), "etc")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	host := hostname(pod, w.cfg.ClusterDomain)
	files := map[string]string{"hosts": w.hostsFile(pod, host, ips), "resolv.conf": w.resolvConf(pod)}
	if !pod.Spec.HostNetwork {
		files["hostname"] = host + "\n"
	}
	for name, text := range files {
		path := filepath.Join(dir, name)
		if have, err := os.ReadFile(path); err == nil && string(have) == text {
			continue
		}
		// In place, not by rename: running containers have the file mounted.
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// fileMounts are the pod's own files in each container.
func (w *worker) fileMounts(pod *corev1.Pod) []runtime.Mount {
	dir := filepath.Join(w.cfg.Volumes.PodDir(pod.UID), "etc")
	names := []string{"hosts", "resolv.conf"}
	if !pod.Spec.HostNetwork {
		names = append(names, "hostname")
	}
	var out []runtime.Mount
	for _, name := range names {
		out = append(out, runtime.Mount{HostPath: filepath.Join(dir, name), ContainerPath: "/etc/" + name})
	}
	return out
}

const hostsHeader = `# Written by Lighter.
127.0.0.1	localhost
::1	localhost ip6-localhost ip6-loopback
fe00::0	ip6-localnet
fe00::0	ip6-mcastprefix
fe00::1	ip6-allnodes
fe00::2	ip6-allrouters
`

// hostsFile is the host's own for a pod on its network, else one that names
// the pod; spec.hostAliases follow.
func (w *worker) hostsFile(pod *corev1.Pod, host string, ips []netip.Addr) string {
	var b strings.Builder
	if pod.Spec.HostNetwork {
		raw, err := os.ReadFile(w.cfg.HostsFile)
		if err != nil {
			raw = []byte(hostsHeader)
		}
		b.Write(raw)
	} else {
		b.WriteString(hostsHeader)
		names := host
		if pod.Spec.Subdomain != "" {
			names = fqdn(pod, w.cfg.ClusterDomain) + "\t" + shortHostname(pod)
		}
		for _, ip := range ips {
			fmt.Fprintf(&b, "%s\t%s\n", ip, names)
		}
	}
	if len(pod.Spec.HostAliases) > 0 {
		b.WriteString("\n# Entries added by HostAliases.\n")
		for _, a := range pod.Spec.HostAliases {
			fmt.Fprintf(&b, "%s\t%s\n", a.IP, strings.Join(a.Hostnames, "\t"))
		}
	}
	return b.String()
}

// maxHostname is what the kernel accepts (HOST_NAME_MAX less one).
const maxHostname = 63

func shortHostname(pod *corev1.Pod) string {
	name := pod.Spec.Hostname
	if name == "" {
		name = pod.Name
	}
	return strings.TrimRight(name[:min(len(name), maxHostname)], "-.")
}

// fqdn is the pod's name in the cluster's DNS; it has one with a subdomain only.
func fqdn(pod *corev1.Pod, domain string) string {
	return fmt.Sprintf("%s.%s.%s.svc.%s", shortHostname(pod), pod.Spec.Subdomain, pod.Namespace, domain)
}

// hostname is what the pod's containers see.
func hostname(pod *corev1.Pod, domain string) string {
	if o := pod.Spec.HostnameOverride; o != nil && *o != "" {
		return *o
	}
	if f := pod.Spec.SetHostnameAsFQDN; f != nil && *f && pod.Spec.Subdomain != "" {
		return fqdn(pod, domain)
	}
	return shortHostname(pod)
}

// resolver is the content of a resolv.conf.
type resolver struct {
	servers, search, options []string
}

// resolvConf follows dnsPolicy, then adds dnsConfig.
func (w *worker) resolvConf(pod *corev1.Pod) string {
	policy := pod.Spec.DNSPolicy
	if policy == corev1.DNSClusterFirst && pod.Spec.HostNetwork {
		policy = corev1.DNSDefault
	}
	var r resolver
	switch policy {
	case corev1.DNSNone:
	case corev1.DNSDefault:
		r = readResolver(w.cfg.ResolvConf)
	default:
		domain := w.cfg.ClusterDomain
		r = resolver{
			servers: texts(w.cfg.ClusterDNS()),
			search:  []string{pod.Namespace + ".svc." + domain, "svc." + domain, domain},
			options: []string{"ndots:5"},
		}
		for _, s := range readResolver(w.cfg.ResolvConf).search {
			if !slices.Contains(r.search, s) {
				r.search = append(r.search, s)
			}
		}
	}
	if pod.Spec.DNSConfig != nil {
		r.add(pod.Spec.DNSConfig)
	}
	return r.String()
}

// add merges the pod's own settings; an option of the same name is replaced.
func (r *resolver) add(c *corev1.PodDNSConfig) {
	for _, s := range c.Nameservers {
		if !slices.Contains(r.servers, s) {
			r.servers = append(r.servers, s)
		}
	}
	for _, s := range c.Searches {
		if !slices.Contains(r.search, s) {
			r.search = append(r.search, s)
		}
	}
	for _, o := range c.Options {
		text := o.Name
		if o.Value != nil {
			text += ":" + *o.Value
		}
		r.options = slices.DeleteFunc(r.options, func(have string) bool {
			name, _, _ := strings.Cut(have, ":")
			return name == o.Name
		})
		r.options = append(r.options, text)
	}
}

// String is resolv.conf(5).
func (r resolver) String() string {
	var b strings.Builder
	if len(r.search) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(r.search, " "))
	}
	for _, s := range r.servers {
		fmt.Fprintf(&b, "nameserver %s\n", s)
	}
	if len(r.options) > 0 {
		fmt.Fprintf(&b, "options %s\n", strings.Join(r.options, " "))
	}
	return b.String()
}

// readResolver reads the host's own settings; an unreadable file is empty.
func readResolver(path string) resolver {
	var r resolver
	raw, err := os.ReadFile(path)
	if err != nil {
		return r
	}
	lines := bufio.NewScanner(bytes.NewReader(raw))
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 {
			continue
		}
		switch fields[0] {
		case "nameserver":
			r.servers = append(r.servers, fields[1])
		case "search", "domain":
			r.search = fields[1:]
		case "options":
			r.options = append(r.options, fields[1:]...)
		}
	}
	return r
}

func texts(ips []netip.Addr) []string {
	out := make([]string, 0, len(ips))
	for _, ip := range ips {
		out = append(out, ip.String())
	}
	return out
}
