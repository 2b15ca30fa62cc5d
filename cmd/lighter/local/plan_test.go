package local

import (
	"net/netip"
	"strings"
	"testing"
)

func TestPlan(t *testing.T) {
	existing := &Cluster{Name: "c", Dir: "/d", Subnet: netip.MustParsePrefix("10.89.7.0/24"), Hosts: []Host{
		{Name: "host-1", Role: RoleServer, IP: netip.MustParseAddr("10.89.7.11")},
		{Name: "host-2", Role: RoleAgent, IP: netip.MustParseAddr("10.89.7.12")},
	}}
	configured := &Cluster{}
	*configured = *existing
	configured.Settings = map[string]any{"max-pods": 5.0}
	tests := []struct {
		name      string
		spec      Spec
		have      *Cluster
		wantHosts int
		servers   int // 1 if 0
		settings  any // of max-pods
		wantErr   string
	}{
		{name: "fresh, one host by default", spec: Spec{Name: "c"}, wantHosts: 1},
		{name: "fresh, three", spec: Spec{Name: "c", Hosts: 3, Servers: 1}, wantHosts: 3},
		{name: "keeps what is there", spec: Spec{Name: "c"}, have: existing, wantHosts: 2},
		{name: "grows", spec: Spec{Name: "c", Hosts: 4}, have: existing, wantHosts: 4},
		{name: "does not shrink", spec: Spec{Name: "c", Hosts: 1}, have: existing, wantErr: "cannot shrink"},
		{name: "name", spec: Spec{Name: "C_"}, wantErr: "cluster name"},
		{name: "path separator in name", spec: Spec{Name: "../x"}, wantErr: "cluster name"},
		{name: "too many", spec: Spec{Name: "c", Hosts: 1000}, wantErr: "between 1 and 200"},
		{name: "settings", spec: Spec{Name: "c", Settings: map[string]any{"max-pods": 7.0}}, have: existing, wantHosts: 2, settings: 7.0},
		{name: "keeps its settings", spec: Spec{Name: "c"}, have: configured, wantHosts: 2, settings: 5.0},
		{name: "other settings", spec: Spec{Name: "c", Settings: map[string]any{"max-pods": 7.0}}, have: configured, wantHosts: 2, settings: 7.0},
		{name: "no settings any more", spec: Spec{Name: "c", Settings: map[string]any{}}, have: configured, wantHosts: 2},
		{name: "settings of its own", spec: Spec{Name: "c", Settings: map[string]any{"node-ip": "10.0.0.1"}}, wantErr: `key "node-ip"`},
		{name: "a data folder of its own", spec: Spec{Name: "c", Settings: map[string]any{"data-dir": "/var/data"}}, wantHosts: 1},
		{name: "a shared data folder", spec: Spec{Name: "c", Settings: map[string]any{"data-dir": "/var/../srv"}}, wantErr: "all hosts would share"},
		{name: "all are servers", spec: Spec{Name: "c", Hosts: 3, Servers: 3}, wantHosts: 3, servers: 3},
		{name: "two of three", spec: Spec{Name: "c", Hosts: 3, Servers: 2}, wantHosts: 3, servers: 2},
		{name: "more servers than hosts", spec: Spec{Name: "c", Hosts: 2, Servers: 3}, wantErr: "only 2 hosts"},
		{name: "other servers", spec: Spec{Name: "c", Hosts: 3, Servers: 3}, have: existing, wantErr: "cannot be changed to 3"},
		{name: "the same servers", spec: Spec{Name: "c", Hosts: 3, Servers: 1}, have: existing, wantHosts: 3},
		{name: "comma in dir", spec: Spec{Name: "c", Dir: "/a,b"}, wantErr: "mount option"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := plan(test.spec, test.have, nil)
			if test.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), test.wantErr) {
					t.Fatalf("error %v, want one with %q", err, test.wantErr)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if len(got.Hosts) != test.wantHosts {
				t.Fatalf("%d hosts, want %d", len(got.Hosts), test.wantHosts)
			}
			if got.Settings["max-pods"] != test.settings {
				t.Errorf("settings %v, want %v", got.Settings, test.settings)
			}
			for i, host := range got.Hosts {
				if (host.Role == RoleServer) != (i < max(test.servers, 1)) {
					t.Errorf("%s has role %s", host.Name, host.Role)
				}
				if want := nth(got.Subnet, 11+i); host.IP != want {
					t.Errorf("%s has address %s, want %s", host.Name, host.IP, want)
				}
			}
			if test.have != nil && len(test.have.Hosts) != 2 {
				t.Error("plan changed what it was given")
			}
		})
	}
}

func TestPickSubnet(t *testing.T) {
	first, err := pickSubnet("local", nil)
	if err != nil {
		t.Fatal(err)
	}
	if again, _ := pickSubnet("local", nil); again != first {
		t.Errorf("%s and %s for one name", first, again)
	}
	second, err := pickSubnet("local", []netip.Prefix{first})
	if err != nil || second.Overlaps(first) || !underlay.Contains(second.Addr()) {
		t.Errorf("%s beside %s, %v", second, first, err)
	}
	if _, err := pickSubnet("local", []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}); err == nil {
		t.Error("a subnet although a route covers all of them")
	}
}

func TestCutRules(t *testing.T) {
	none := cutRules(nil)
	if strings.Contains(none, "drop") || !strings.Contains(none, "delete table") {
		t.Errorf("no cuts: %s", none)
	}
	rules := cutRules([]Cut{{A: "host-1", B: "host-2"}, {A: "host-3"}})
	for _, want := range []string{
		`iifname "host-1" oifname "host-2" drop`, `iifname "host-2" oifname "host-1" drop`,
		"iifname \"host-3\" drop", "oifname \"host-3\" drop",
	} {
		if !strings.Contains(rules, want) {
			t.Errorf("no %q in\n%s", want, rules)
		}
	}
}

func TestHierarchies(t *testing.T) {
	const hybrid = `30 24 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
31 30 0:27 / /sys/fs/cgroup/cpu rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
32 30 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
33 24 0:27 / /elsewhere rw - cgroup cgroup rw,cpu,cpuacct
34 24 0:29 /docker/x /inside rw - cgroup cgroup rw,pids
`
	got := hierarchies(hybrid)
	if len(got) != 2 || got[0].mount != "/sys/fs/cgroup/cpu" || got[0].v2 || got[1].mount != "/sys/fs/cgroup/unified" || !got[1].v2 {
		t.Errorf("%+v", got)
	}
}
