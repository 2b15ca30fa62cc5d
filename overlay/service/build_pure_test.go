package service

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/knftables"
)

func TestBuildDecides(t *testing.T) {
	ready, remote := ep("10.42.1.1", thisNode), ep("10.42.2.1", "host-2")
	policy := func(external bool) func(*corev1.Service) {
		return func(s *corev1.Service) {
			if external {
				s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
			} else {
				s.Spec.InternalTrafficPolicy = ptr.To(corev1.ServiceInternalTrafficPolicyLocal)
			}
		}
	}
	const vip = "10.43.0.1 . tcp . 80"
	for name, c := range map[string]struct {
		service   *corev1.Service
		endpoints []discoveryv1.Endpoint
		want      map[string]map[string]string // set → elements that it has exactly
	}{
		"two endpoints": {svc("a", "10.43.0.1"), []discoveryv1.Endpoint{remote, ready}, map[string]map[string]string{
			mapServices:   {vip: "goto pick-2"},
			mapEndpoints:  {vip + " . 0": "10.42.1.1 . 8080", vip + " . 1": "10.42.2.1 . 8080"},
			setClusterIPs: {"10.43.0.1": ""},
			setHairpin:    {"10.42.1.1 . 10.42.1.1": ""},
		}},
		"none": {svc("a", "10.43.0.1"), nil, map[string]map[string]string{
			mapServices: {}, mapNoEndpoints: {vip: "goto refuse"},
		}},
		"not ready counts as none": {svc("a", "10.43.0.1"), []discoveryv1.Endpoint{epNotReady("10.42.1.1", thisNode)}, map[string]map[string]string{
			mapServices: {}, mapNoEndpoints: {vip: "goto refuse"},
		}},
		"terminating only if nothing else": {svc("a", "10.43.0.1"), []discoveryv1.Endpoint{ready, epTerminating("10.42.1.9", thisNode)}, map[string]map[string]string{
			mapEndpoints: {vip + " . 0": "10.42.1.1 . 8080"},
		}},
		"terminating as a last resort": {svc("a", "10.43.0.1"), []discoveryv1.Endpoint{epTerminating("10.42.1.9", thisNode)}, map[string]map[string]string{
			mapEndpoints: {vip + " . 0": "10.42.1.9 . 8080"},
		}},
		"internal policy Local, endpoints elsewhere": {svc("a", "10.43.0.1", policy(false)), []discoveryv1.Endpoint{remote}, map[string]map[string]string{
			mapServices: {}, mapNoEndpoints: {vip: "drop"},
		}},
		"node port": {svc("a", "10.43.0.1", nodePort), []discoveryv1.Endpoint{ready}, map[string]map[string]string{
			mapNodePorts: {"tcp . 30080": "goto masked-nodeport-1"}, mapNodePortEndpoints: {"tcp . 30080 . 0": "10.42.1.1 . 8080"},
		}},
		"node port, none": {svc("a", "10.43.0.1", nodePort), nil, map[string]map[string]string{
			mapNodePorts: {}, mapNoNodePorts: {"tcp . 30080": "goto refuse"},
		}},
		"headless": {svc("a", corev1.ClusterIPNone), []discoveryv1.Endpoint{ready}, map[string]map[string]string{
			mapServices: {}, mapEndpoints: {}, mapNoEndpoints: {}, setClusterIPs: {},
		}},
		"external name": {svc("a", "", func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeExternalName }), []discoveryv1.Endpoint{ready}, map[string]map[string]string{
			mapServices: {}, mapNoEndpoints: {},
		}},
		"load balancer address": {svc("a", "10.43.0.1", func(s *corev1.Service) {
			s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "203.0.113.9"}, {IP: "203.0.113.8", IPMode: ptr.To(corev1.LoadBalancerIPModeProxy)}}
		}), []discoveryv1.Endpoint{ready}, map[string]map[string]string{
			mapServices: {vip: "goto pick-1", "203.0.113.9 . tcp . 80": "goto masked-pick-1"},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			table := build([]*corev1.Service{c.service}, []*discoveryv1.EndpointSlice{slice("a", c.endpoints...)})
			for set, want := range c.want {
				if got := table.Sets[set].Elements; !maps.Equal(got, want) {
					t.Errorf("%s holds %v, want %v", set, got, want)
				}
			}
		})
	}
}

func TestOlderServiceKeepsItsAddress(t *testing.T) {
	old := svc("old", "10.43.0.1", func(s *corev1.Service) { s.CreationTimestamp = metav1.NewTime(time.Unix(1, 0)) })
	thief := svc("a-thief", "10.43.0.2", func(s *corev1.Service) {
		s.CreationTimestamp = metav1.NewTime(time.Unix(2, 0))
		s.Spec.ExternalIPs = []string{"10.43.0.1"}
	})
	table := build([]*corev1.Service{thief, old}, []*discoveryv1.EndpointSlice{
		slice("old", ep("10.42.1.1", thisNode)), slice("a-thief", ep("10.42.6.6", thisNode))})
	if got := table.Sets[mapEndpoints].Elements["10.43.0.1 . tcp . 80 . 0"]; got != "10.42.1.1 . 8080" {
		t.Errorf("the address leads to %s", got)
	}
}

func TestEndpointInTwoSlicesCountsOnce(t *testing.T) {
	moved := slice("a", ep("10.42.1.1", thisNode))
	moved.Name = "a-2"
	table := build([]*corev1.Service{svc("a", "10.43.0.1")}, []*discoveryv1.EndpointSlice{slice("a", ep("10.42.1.1", thisNode)), moved})
	if got := table.Sets[mapServices].Elements["10.43.0.1 . tcp . 80"]; got != "goto pick-1" {
		t.Errorf("balanced by %q", got)
	}
}

func TestIPv6(t *testing.T) {
	s := slice("a", ep("fd42::1", thisNode))
	s.AddressType = discoveryv1.AddressTypeIPv6
	table := Build(Input{Family: knftables.IPv6Family, Node: thisNode, Services: []*corev1.Service{svc("a", "fd43::1", nodePort)}, Slices: []*discoveryv1.EndpointSlice{s}})
	if got := table.Sets[mapEndpoints].Elements["fd43::1 . tcp . 80 . 0"]; got != "fd42::1 . 8080" {
		t.Errorf("endpoint %q in %v", got, table.Sets[mapEndpoints])
	}
}

// TestDiffReachesEveryTableFromEveryOther applies differences on knftables' working
// fake of the kernel, which refuses what nft would refuse (dangling jumps, missing
// elements), and compares with the table written in one go.
func TestDiffReachesEveryTableFromEveryOther(t *testing.T) {
	sticky := func(s *corev1.Service) { s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP }
	local := func(s *corev1.Service) { s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal }
	a, b := ep("10.42.1.1", thisNode), ep("10.42.2.1", "host-2")
	tables := []*Table{
		build(nil, nil),
		build([]*corev1.Service{svc("x", "10.43.0.1")}, []*discoveryv1.EndpointSlice{slice("x", a)}),
		build([]*corev1.Service{svc("x", "10.43.0.1", nodePort)}, []*discoveryv1.EndpointSlice{slice("x", a, b)}),
		build([]*corev1.Service{svc("x", "10.43.0.1", nodePort, sticky)}, []*discoveryv1.EndpointSlice{slice("x", a, b)}),
		build([]*corev1.Service{svc("x", "10.43.0.1", nodePort, sticky, local)}, []*discoveryv1.EndpointSlice{slice("x", b)}),
		build([]*corev1.Service{svc("x", "10.43.0.1", nodePort, local), svc("y", "10.43.0.2")}, []*discoveryv1.EndpointSlice{slice("x", a, b), slice("y", b)}),
	}
	run := func(t *testing.T, fake *knftables.Fake, tx *knftables.Transaction) {
		t.Helper()
		if err := fake.Run(t.Context(), tx); err != nil {
			t.Fatalf("%v in transaction\n%s", err, tx)
		}
	}
	for i, from := range tables {
		for j, to := range tables {
			fake, want := knftables.NewFake(knftables.IPv4Family, TableName), knftables.NewFake(knftables.IPv4Family, TableName)
			for f, content := range map[*knftables.Fake]*Table{fake: from, want: to} {
				tx := f.NewTransaction()
				Replace(tx, content)
				run(t, f, tx)
			}
			tx := fake.NewTransaction()
			Diff(tx, from, to)
			if i == j && tx.NumOperations() != 0 {
				t.Errorf("table %d differs from itself:\n%s", i, tx)
			}
			run(t, fake, tx)
			if got := sortedDump(fake); got != sortedDump(want) {
				t.Errorf("from table %d to %d:\n%s\nwant\n%s", i, j, got, sortedDump(want))
			}
			tx = fake.NewTransaction()
			names, err := fake.ListAll(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			TakeOver(tx, existing{chains: names["chain"], sets: names["set"], maps: names["map"]}, from)
			run(t, fake, tx)
		}
	}
}

// sortedDump is what a fake holds, without the order in which it came there (the order
// of rules within a chain stays).
func sortedDump(f *knftables.Fake) string {
	lines := strings.Split(f.Dump(), "\n")
	slices.SortStableFunc(lines, func(a, b string) int {
		if strings.HasPrefix(a, "add rule") && strings.HasPrefix(b, "add rule") {
			return strings.Compare(strings.Fields(a)[4], strings.Fields(b)[4])
		}
		return strings.Compare(a, b)
	})
	return strings.Join(lines, "\n")
}

func TestOneEndpointMoreIsAHandfulOfOperations(t *testing.T) {
	services, all := cluster(100, 5)
	old := build(services, all)
	all[50] = all[50].DeepCopy()
	all[50].Endpoints = append(all[50].Endpoints, ep("10.42.99.99", thisNode))
	fake := knftables.NewFake(knftables.IPv4Family, TableName)
	tx := fake.NewTransaction()
	Diff(tx, old, build(services, all))
	if n := tx.NumOperations(); n > 10 {
		t.Errorf("%d operations:\n%s", n, tx)
	}
}

func TestOwnWritesAreToldFromOthers(t *testing.T) {
	own := ownGenerations{spans: []span{{before: 10, last: 11, ours: 1}, {before: 14, last: 16, ours: 1}}}
	for _, step := range []struct {
		id   uint32
		ours bool
	}{{9, false}, {11, true}, {12, false}, {15, true}, {16, false}, {17, false}} {
		if got := own.has(step.id); got != step.ours {
			t.Errorf("generation %d: ours = %v, want %v", step.id, got, step.ours)
		}
	}
}
