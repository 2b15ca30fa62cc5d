package local

import (
	"fmt"
	"hash/fnv"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Role says which daemon a host runs.
type Role string

// The roles of a host.
const (
	RoleServer Role = "server" // control plane and agent
	RoleAgent  Role = "agent"
)

// Spec is a cluster as the user asks for it.
type Spec struct {
	Name string
	// Dir holds all that lasts; DefaultDir(Name) if empty.
	Dir string
	// Hosts is how many hosts to have; 0 keeps what is there, or 1.
	Hosts int
	// Servers is how many of them run the control plane; 0 keeps what is there, or 1.
	Servers int
	// Settings are for the daemons of all hosts, as in their configuration file;
	// nil keeps what is there. Whoever asks has checked them.
	Settings map[string]any
}

// ownSettings are those that a local cluster makes itself, for each host.
var ownSettings = []string{"node-name", "node-ip", "cgroup-root", "server", "token", "join"}

// Cluster is what is wanted of one cluster. It is the content of cluster.json;
// only the verbs in cluster.go write it, under the lock.
type Cluster struct {
	Name string `json:"name"`
	Dir  string `json:"dir"`
	// Subnet is the underlay. Its first address is the machine's.
	Subnet netip.Prefix `json:"subnet"`
	Hosts  []Host       `json:"hosts"`
	// Cuts are the broken links, oldest first.
	Cuts []Cut `json:"cuts,omitempty"`
	// Settings are for the daemons of all hosts, beside ownSettings.
	Settings map[string]any `json:"settings,omitempty"`
}

// Host is one machine of the cluster.
type Host struct {
	Name string     `json:"name"`
	Role Role       `json:"role"`
	IP   netip.Addr `json:"ip"`
}

// Cut is a network partition between two hosts, or between one host and all
// others (the machine included) if B is empty.
type Cut struct {
	A string `json:"a"`
	B string `json:"b,omitempty"`
}

const (
	// DataRoot is where clusters live by default.
	DataRoot = "/var/lib/lighter-local"
	// RunRoot holds the pinned namespaces and an index of the clusters.
	RunRoot = "/run/lighter-local"
	// cgroupRoot is the parent of all clusters' cgroups in every hierarchy.
	cgroupRoot = "/lighter-local"
	// firstHost is the last byte of host-1's address, less one.
	firstHost = 10
	maxHosts  = 200
	// maxServers is enough to lose three of them.
	maxServers = 7
)

// underlay is the range that clusters take their /24 from.
var underlay = netip.MustParsePrefix("10.89.0.0/16")

// clusterName keeps names usable as file, cgroup and context names.
var clusterName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$`)

// DefaultDir is where the cluster of that name keeps its data.
func DefaultDir(name string) string { return filepath.Join(DataRoot, name) }

// ownFolders are settings of folders in which hosts must not meet.
var ownFolders = map[string][]string{"data-dir": {"/var/"}, "run-dir": {"/run/", "/var/"}, "pod-log-dir": {"/var/"}}

// dataDir is where daemons keep their data, on their hosts.
func (c *Cluster) dataDir() string {
	if dir, ok := c.Settings["data-dir"].(string); ok {
		return dir
	}
	return "/var/lib/lighter"
}

// check says what is wrong with a wish.
func (s Spec) check() error {
	switch {
	case !clusterName.MatchString(s.Name):
		return fmt.Errorf("cluster name %q: use 1 to 32 of a-z, 0-9 and -, with a letter or digit at both ends", s.Name)
	case strings.ContainsAny(s.Dir, ",:\\\n"):
		return fmt.Errorf("--dir %q: must not contain a comma, colon, backslash or line break (it becomes a mount option)", s.Dir)
	case s.Hosts < 0 || s.Hosts > maxHosts:
		return fmt.Errorf("--hosts %d: must be between 1 and %d", s.Hosts, maxHosts)
	case s.Servers < 0 || s.Servers > maxServers:
		return fmt.Errorf("--servers %d: must be between 1 and %d", s.Servers, maxServers)
	}
	for _, key := range ownSettings {
		if _, given := s.Settings[key]; given {
			return fmt.Errorf("--config: key %q: a local cluster sets it for each host; remove it", key)
		}
	}
	for key, own := range ownFolders {
		dir, given := s.Settings[key].(string)
		if given && !slices.ContainsFunc(own, func(top string) bool { return strings.HasPrefix(filepath.Clean(dir), top) }) {
			return fmt.Errorf("--config: key %q: all hosts would share %s: choose one below %s, which each host has for itself", key, dir, strings.Join(own, " or "))
		}
	}
	return nil
}

// plan brings what is there (nil for nothing) to what is asked for. taken are
// the routes of the machine and the subnets of other clusters.
func plan(spec Spec, have *Cluster, taken []netip.Prefix) (*Cluster, error) {
	if err := spec.check(); err != nil {
		return nil, err
	}
	want := &Cluster{Name: spec.Name, Dir: spec.Dir}
	if have != nil {
		copied := *have
		want = &copied
		want.Hosts = slices.Clone(have.Hosts)
	} else {
		subnet, err := pickSubnet(spec.Name, taken)
		if err != nil {
			return nil, err
		}
		want.Subnet = subnet
	}
	if spec.Settings != nil {
		want.Settings = spec.Settings
	}
	if spec.Hosts != 0 && spec.Hosts < len(want.Hosts) {
		return nil, fmt.Errorf("cluster %s has %d hosts: it cannot shrink to %d; run 'lighter local down --name %s' first", spec.Name, len(want.Hosts), spec.Hosts, spec.Name)
	}
	servers, err := planServers(spec, len(want.Servers()))
	if err != nil {
		return nil, err
	}
	for len(want.Hosts) < max(spec.Hosts, 1) {
		n := len(want.Hosts) + 1
		role := RoleAgent
		if n <= servers {
			role = RoleServer
		}
		want.Hosts = append(want.Hosts, Host{Name: fmt.Sprintf("host-%d", n), Role: role, IP: nth(want.Subnet, firstHost+n)})
	}
	return want, nil
}

// planServers is how many hosts are servers. That does not change later: servers
// hold data.
func planServers(spec Spec, have int) (int, error) {
	switch {
	case have > 0 && spec.Servers != 0 && spec.Servers != have:
		return 0, fmt.Errorf("cluster %s has %d servers: that cannot be changed to %d; run 'lighter local down --name %s' first", spec.Name, have, spec.Servers, spec.Name)
	case have > 0:
		return have, nil
	case spec.Servers > max(spec.Hosts, 1):
		return 0, fmt.Errorf("--servers %d: there are only %d hosts (--hosts)", spec.Servers, max(spec.Hosts, 1))
	}
	return max(spec.Servers, 1), nil
}

// pickSubnet takes the /24 that the name hashes to, or the next one that
// overlaps with nothing. The same name gets the same subnet on every machine
// that has it free.
func pickSubnet(name string, taken []netip.Prefix) (netip.Prefix, error) {
	start := int(hash(name) % 256)
	for i := range 256 {
		base := underlay.Addr().As4()
		base[2] = byte(start + i)
		subnet := netip.PrefixFrom(netip.AddrFrom4(base), 24)
		if !slices.ContainsFunc(taken, subnet.Overlaps) {
			return subnet, nil
		}
	}
	return netip.Prefix{}, fmt.Errorf("no free /24 in %s: every one overlaps with a route of this machine (see 'ip route')", underlay)
}

// nth is the n-th address of a /24.
func nth(subnet netip.Prefix, n int) netip.Addr {
	addr := subnet.Addr().As4()
	addr[3] = byte(n)
	return netip.AddrFrom4(addr)
}

func hash(name string) uint32 {
	h := fnv.New32a()
	h.Write([]byte(name))
	return h.Sum32()
}

// Gateway is the machine's own address on the underlay.
func (c *Cluster) Gateway() netip.Addr { return nth(c.Subnet, 1) }

// Servers are the hosts that run the control plane.
func (c *Cluster) Servers() []Host {
	var servers []Host
	for _, h := range c.Hosts {
		if h.Role == RoleServer {
			servers = append(servers, h)
		}
	}
	return servers
}

// Host finds a host by name.
func (c *Cluster) Host(name string) (Host, error) {
	var names []string
	for _, h := range c.Hosts {
		if h.Name == name {
			return h, nil
		}
		names = append(names, h.Name)
	}
	return Host{}, fmt.Errorf("cluster %s has no host %q: it has %v", c.Name, name, names)
}

// Kubeconfig is the path of the admin's kubeconfig for use on the machine.
func (c *Cluster) Kubeconfig() string { return filepath.Join(c.Dir, "kubeconfig") }

// HostDir is where the parts of a host that survive its power loss live.
func (c *Cluster) HostDir(host string) string { return filepath.Join(c.Dir, "hosts", host) }

// LogFile is what the host's daemon prints.
func (c *Cluster) LogFile(host string) string { return filepath.Join(c.HostDir(host), "daemon.log") }

// CgroupPath is the host's cgroup, from the root of each hierarchy.
func (c *Cluster) CgroupPath(host string) string { return filepath.Join(cgroupRoot, c.Name, host) }

// uplink is the name of the machine's interface to the switch. Interface names
// have 15 characters at most, so it is a hash.
func (c *Cluster) uplink() string { return fmt.Sprintf("lt-%08x", hash(c.Name)) }

func (c *Cluster) pinDir() string { return filepath.Join(RunRoot, c.Name) }

// pin is the file that holds a namespace: kind is net, mnt or uts.
func (c *Cluster) pin(host, kind string) string {
	return filepath.Join(c.pinDir(), host+"."+kind)
}
