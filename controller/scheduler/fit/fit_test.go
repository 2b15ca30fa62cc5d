package fit

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"lighter.dev/lighter/controller/scheduler/model"
)

type nodeOption func(*corev1.Node)
type podOption func(*corev1.Pod)

// aNode is ready, has 4 CPUs, 8 GiB and room for 10 pods.
func aNode(name string, options ...nodeOption) *corev1.Node {
	node := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelHostname: name}},
		Status: corev1.NodeStatus{
			Allocatable: corev1.ResourceList{
				corev1.ResourceCPU: resource.MustParse("4"), corev1.ResourceMemory: resource.MustParse("8Gi"),
				corev1.ResourcePods: resource.MustParse("10"), corev1.ResourceEphemeralStorage: resource.MustParse("10Gi"),
			},
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}},
		},
	}
	for _, option := range options {
		option(node)
	}
	return node
}

func zone(name string) nodeOption {
	return func(node *corev1.Node) { node.Labels[corev1.LabelTopologyZone] = name }
}
func taint(key string, effect corev1.TaintEffect) nodeOption {
	return func(node *corev1.Node) {
		node.Spec.Taints = append(node.Spec.Taints, corev1.Taint{Key: key, Effect: effect})
	}
}
func cordoned(node *corev1.Node) { node.Spec.Unschedulable = true }
func unready(node *corev1.Node)  { node.Status.Conditions = nil }
func roomFor(n string) nodeOption {
	return func(node *corev1.Node) { node.Status.Allocatable[corev1.ResourcePods] = resource.MustParse(n) }
}
func holds(image string, bytes int64) nodeOption {
	return func(node *corev1.Node) {
		node.Status.Images = append(node.Status.Images, corev1.ContainerImage{Names: []string{image}, SizeBytes: bytes})
	}
}

func aPod(name string, options ...podOption) *corev1.Pod {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "shop", UID: types.UID(name), Labels: map[string]string{"app": name}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: "main"}}},
	}
	for _, option := range options {
		option(pod)
	}
	return pod
}

func requests(name corev1.ResourceName, amount string) podOption {
	return func(pod *corev1.Pod) {
		list := &pod.Spec.Containers[0].Resources.Requests
		if *list == nil {
			*list = corev1.ResourceList{}
		}
		(*list)[name] = resource.MustParse(amount)
	}
}
func initRequests(amount string) podOption {
	return func(pod *corev1.Pod) {
		pod.Spec.InitContainers = []corev1.Container{{Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(amount)}}}}
	}
}
func overhead(amount string) podOption {
	return func(pod *corev1.Pod) {
		pod.Spec.Overhead = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(amount)}
	}
}
func selects(key, value string) podOption {
	return func(pod *corev1.Pod) { pod.Spec.NodeSelector = map[string]string{key: value} }
}
func toleratesKey(key string) podOption {
	return func(pod *corev1.Pod) {
		pod.Spec.Tolerations = append(pod.Spec.Tolerations, corev1.Toleration{Key: key, Operator: corev1.TolerationOpExists})
	}
}
func hostPort(port int32, ip string) podOption {
	return func(pod *corev1.Pod) {
		pod.Spec.Containers[0].Ports = append(pod.Spec.Containers[0].Ports, corev1.ContainerPort{HostPort: port, HostIP: ip, ContainerPort: port})
	}
}
func labelled(key, value string) podOption {
	return func(pod *corev1.Pod) { pod.Labels[key] = value }
}
func ownedBy(uid string) podOption {
	return func(pod *corev1.Pod) {
		pod.OwnerReferences = []metav1.OwnerReference{{UID: types.UID(uid), Controller: new(true)}}
	}
}

func termFor(label, topology string) corev1.PodAffinityTerm {
	return corev1.PodAffinityTerm{TopologyKey: topology, LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": label}}}
}
func near(label, topology string) podOption {
	return func(pod *corev1.Pod) {
		pod.Spec.Affinity = &corev1.Affinity{PodAffinity: &corev1.PodAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{termFor(label, topology)}}}
	}
}
func apartFrom(label, topology string) podOption {
	return func(pod *corev1.Pod) {
		pod.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{termFor(label, topology)}}}
	}
}
func preferNear(label, topology string) podOption {
	return func(pod *corev1.Pod) {
		pod.Spec.Affinity = &corev1.Affinity{PodAffinity: &corev1.PodAffinity{PreferredDuringSchedulingIgnoredDuringExecution: []corev1.WeightedPodAffinityTerm{{Weight: 100, PodAffinityTerm: termFor(label, topology)}}}}
	}
}
func preferNode(key, value string) podOption {
	return func(pod *corev1.Pod) {
		pod.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{PreferredDuringSchedulingIgnoredDuringExecution: []corev1.PreferredSchedulingTerm{{
			Weight: 10, Preference: corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: key, Operator: corev1.NodeSelectorOpIn, Values: []string{value}}}},
		}}}}
	}
}
func requireNode(name string) podOption {
	return func(pod *corev1.Pod) {
		pod.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
			MatchFields: []corev1.NodeSelectorRequirement{{Key: metav1.ObjectNameField, Operator: corev1.NodeSelectorOpIn, Values: []string{name}}},
		}}}}}
	}
}
func spreads(label, topology string, skew int32, policy corev1.UnsatisfiableConstraintAction) podOption {
	return func(pod *corev1.Pod) {
		pod.Spec.TopologySpreadConstraints = append(pod.Spec.TopologySpreadConstraints, corev1.TopologySpreadConstraint{
			MaxSkew: skew, TopologyKey: topology, WhenUnsatisfiable: policy,
			LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": label}},
		})
	}
}

// scene is a cluster; on maps pods to the nodes that they run on.
type scene struct {
	nodes []*corev1.Node
	on    map[*corev1.Pod]string
}

func (s scene) cluster() *model.Cluster {
	cluster := model.NewCluster()
	cluster.SetNamespace("shop", map[string]string{"team": "a"})
	for _, node := range s.nodes {
		cluster.SetNode(node)
	}
	for pod, node := range s.on {
		cluster.Place(model.NewPod(pod), node)
	}
	return cluster
}

func nodes(list ...*corev1.Node) []*corev1.Node { return list }

func TestSchedule(t *testing.T) {
	const no = corev1.TaintEffectNoSchedule
	host, zoneKey := corev1.LabelHostname, corev1.LabelTopologyZone
	two := nodes(aNode("a", zone("z1")), aNode("b", zone("z2")))
	for _, test := range []struct {
		name  string
		scene scene
		pod   *corev1.Pod
		want  string // a node, or the failure's text
	}{
		{"no nodes", scene{}, aPod("p"), "no nodes available to schedule pods"},
		{"fits", scene{nodes: nodes(aNode("a"))}, aPod("p"), "a"},
		{"lacks cpu and memory", scene{nodes: nodes(aNode("a"))}, aPod("p", requests("cpu", "5"), requests("memory", "9Gi")),
			"0/1 nodes are available: 1 Insufficient cpu, 1 Insufficient memory."},
		{"lacks disk and a device", scene{nodes: nodes(aNode("a"))}, aPod("p", requests("ephemeral-storage", "11Gi"), requests("example.com/gpu", "1")),
			"0/1 nodes are available: 1 Insufficient ephemeral-storage, 1 Insufficient example.com/gpu."},
		{"others use the cpu", scene{two, map[*corev1.Pod]string{aPod("x", requests("cpu", "3")): "a"}}, aPod("p", requests("cpu", "2")), "b"},
		{"init container is larger", scene{nodes: nodes(aNode("a"))}, aPod("p", requests("cpu", "1"), initRequests("5")),
			"0/1 nodes are available: 1 Insufficient cpu."},
		{"overhead counts", scene{nodes: nodes(aNode("a"))}, aPod("p", requests("cpu", "3"), overhead("1500m")),
			"0/1 nodes are available: 1 Insufficient cpu."},
		{"pod limit", scene{nodes(aNode("a", roomFor("1"))), map[*corev1.Pod]string{aPod("x"): "a"}}, aPod("p"),
			"0/1 nodes are available: 1 Too many pods."},
		{"every reason is counted", scene{nodes: nodes(aNode("a"), aNode("b", taint("x", no)), aNode("c", taint("y", no)), aNode("d", cordoned))}, aPod("p", requests("cpu", "5")),
			"0/4 nodes are available: 1 Insufficient cpu, 1 node(s) were unschedulable, 2 node(s) had untolerated taint(s)."},
		{"not ready", scene{nodes: nodes(aNode("a", unready))}, aPod("p"), "0/1 nodes are available: 1 node(s) had untolerated taint(s)."},
		{"tolerates", scene{nodes: nodes(aNode("a", taint("x", no)), aNode("b", taint("y", no)))}, aPod("p", toleratesKey("y")), "b"},
		{"tolerates NoExecute", scene{nodes: nodes(aNode("a", taint("x", corev1.TaintEffectNoExecute)))}, aPod("p"), "0/1 nodes are available: 1 node(s) had untolerated taint(s)."},
		{"prefers an untainted node", scene{nodes: nodes(aNode("a", taint("x", corev1.TaintEffectPreferNoSchedule)), aNode("b"))}, aPod("p"), "b"},
		{"node selector", scene{nodes: two}, aPod("p", selects(zoneKey, "z2")), "b"},
		{"node selector without match", scene{nodes: two}, aPod("p", selects(zoneKey, "z3")), "0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector."},
		{"node by name field", scene{nodes: two}, aPod("p", requireNode("b")), "b"},
		{"preferred node", scene{nodes: two}, aPod("p", preferNode(zoneKey, "z2")), "b"},
		{"host port taken", scene{two, map[*corev1.Pod]string{aPod("x", hostPort(80, "")): "a"}}, aPod("p", hostPort(80, "10.0.0.1")), "b"},
		{"host port taken everywhere", scene{nodes(aNode("a")), map[*corev1.Pod]string{aPod("x", hostPort(80, "10.0.0.1")): "a"}}, aPod("p", hostPort(80, "")),
			"0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports."},
		{"host port on another address", scene{nodes(aNode("a")), map[*corev1.Pod]string{aPod("x", hostPort(80, "10.0.0.1")): "a"}}, aPod("p", hostPort(80, "10.0.0.2")), "a"},
		{"emptier node", scene{two, map[*corev1.Pod]string{aPod("x", requests("cpu", "1")): "a"}}, aPod("p"), "b"},
		{"image is there", scene{nodes: nodes(aNode("a"), aNode("b", holds("docker.io/library/main:latest", 900<<20)))}, aPod("p"), "b"},
		{"away from its like", scene{two, map[*corev1.Pod]string{aPod("x", ownedBy("rs")): "a", aPod("y", requests("cpu", "1")): "b"}}, aPod("p", ownedBy("rs")), "b"},
		{"spread beats the image", scene{nodes(aNode("a"), aNode("b", holds("docker.io/library/main:latest", 900<<20))), map[*corev1.Pod]string{aPod("x", ownedBy("rs")): "b"}}, aPod("p", ownedBy("rs")), "a"},
		{"near", scene{two, map[*corev1.Pod]string{aPod("db"): "b"}}, aPod("p", near("db", zoneKey)), "b"},
		{"near nobody", scene{nodes: two}, aPod("p", near("db", zoneKey)), "0/2 nodes are available: 2 node(s) didn't match pod affinity rules."},
		{"the first of those who stay together", scene{nodes: nodes(aNode("a"))}, aPod("p", near("p", host)), "a"},
		{"prefers near", scene{two, map[*corev1.Pod]string{aPod("db"): "b"}}, aPod("p", preferNear("db", host)), "b"},
		{"apart", scene{two, map[*corev1.Pod]string{aPod("db"): "a"}}, aPod("p", apartFrom("db", host)), "b"},
		{"apart from all", scene{nodes(aNode("a")), map[*corev1.Pod]string{aPod("db"): "a"}}, aPod("p", apartFrom("db", host)),
			"0/1 nodes are available: 1 node(s) didn't match pod anti-affinity rules."},
		{"repelled by a pod that runs", scene{two, map[*corev1.Pod]string{aPod("db", apartFrom("p", zoneKey)): "a"}}, aPod("p"), "b"},
		{"repelled everywhere", scene{nodes(aNode("a")), map[*corev1.Pod]string{aPod("db", apartFrom("p", host)): "a"}}, aPod("p"),
			"0/1 nodes are available: 1 node(s) didn't satisfy existing pods anti-affinity rules."},
		{"hard spread", scene{two, map[*corev1.Pod]string{aPod("x", labelled("app", "p")): "a", aPod("y", requests("cpu", "2")): "b"}},
			aPod("p", spreads("p", zoneKey, 1, corev1.DoNotSchedule)), "b"},
		{"hard spread with a full domain", scene{nodes(aNode("a", zone("z1")), aNode("b", zone("z2"), roomFor("0"))), map[*corev1.Pod]string{aPod("x", labelled("app", "p")): "a"}},
			aPod("p", spreads("p", zoneKey, 1, corev1.DoNotSchedule)), "0/2 nodes are available: 1 Too many pods, 1 node(s) didn't match pod topology spread constraints."},
		{"hard spread without the label", scene{nodes: nodes(aNode("a"))}, aPod("p", spreads("p", zoneKey, 1, corev1.DoNotSchedule)),
			"0/1 nodes are available: 1 node(s) didn't match pod topology spread constraints (missing required label)."},
		{"spread leaves unusable domains out", scene{nodes(aNode("a", zone("z1")), aNode("b", zone("z2"))), map[*corev1.Pod]string{aPod("x", labelled("app", "p")): "a"}},
			aPod("p", spreads("p", zoneKey, 1, corev1.DoNotSchedule), selects(host, "a")), "a"},
		{"soft spread", scene{two, map[*corev1.Pod]string{aPod("x", labelled("app", "p")): "a", aPod("y", requests("cpu", "1")): "b"}},
			aPod("p", spreads("p", zoneKey, 1, corev1.ScheduleAnyway)), "b"},
	} {
		t.Run(test.name, func(t *testing.T) {
			cluster, pod := test.scene.cluster(), model.NewPod(test.pod)
			for start := range max(1, len(cluster.Nodes)) { // wherever it begins
				decision := Schedule(cluster, pod, start, &Scratch{})
				got := decision.Node
				if decision.Failure != nil {
					got = decision.Failure.Error()
				}
				if got != test.want {
					t.Errorf("got %q, want %q", got, test.want)
				}
			}
		})
	}
}

func TestHopeNamesWhatMayHelp(t *testing.T) {
	for _, test := range []struct {
		node *corev1.Node
		pod  *corev1.Pod
		want model.Change
	}{
		{aNode("a", roomFor("0")), aPod("p"), model.PodGone | model.NodeCapacity},
		{aNode("a", taint("x", corev1.TaintEffectNoSchedule)), aPod("p"), model.NodeTaints},
		{aNode("a"), aPod("p", selects("x", "y")), model.NodeLabels},
	} {
		cluster := scene{nodes: nodes(test.node)}.cluster()
		if got := Schedule(cluster, model.NewPod(test.pod), 0, &Scratch{}).Failure.Hope; got != test.want|model.NodeAdded {
			t.Errorf("hope %b, want %b", got, test.want|model.NodeAdded)
		}
	}
}

func TestReplicasSpreadOverHosts(t *testing.T) {
	cluster := scene{nodes: nodes(aNode("a", holds("docker.io/library/main:latest", 400<<20)), aNode("b"), aNode("c"))}.cluster()
	count := map[string]int{}
	var scratch Scratch
	for i := range 9 {
		pod := model.NewPod(aPod(fmt.Sprint("p", i), ownedBy("rs")))
		decision := Schedule(cluster, pod, i, &scratch)
		cluster.Place(pod, decision.Node)
		count[decision.Node]++
	}
	if count["a"] != 3 || count["b"] != 3 || count["c"] != 3 {
		t.Errorf("9 pods on 3 hosts: %v", count)
	}
}

func TestLargeClustersAreSampledInTurn(t *testing.T) {
	cluster := bigCluster(1000)
	pod := model.NewPod(aPod("p"))
	first := Schedule(cluster, pod, 0, &Scratch{})
	if first.Examined != 400 {
		t.Errorf("examined %d of 1000 nodes, want 400", first.Examined)
	}
	if second := Schedule(cluster, pod, first.Examined, &Scratch{}); second.Node == first.Node {
		t.Errorf("both samples lead to %s", second.Node)
	}
	if got := Schedule(bigCluster(100), pod, 0, &Scratch{}); got.Examined != 100 {
		t.Errorf("examined %d of 100 nodes", got.Examined)
	}
}

func TestNamespaceSelectors(t *testing.T) {
	cluster := scene{nodes: nodes(aNode("a"), aNode("b")), on: map[*corev1.Pod]string{aPod("db"): "a"}}.cluster()
	other := aPod("p", apartFrom("db", corev1.LabelHostname))
	other.Namespace = "else"
	term := &other.Spec.Affinity.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution[0]
	for _, test := range []struct {
		selector *metav1.LabelSelector
		repelled bool
	}{
		{nil, false}, // the pod's own namespace
		{&metav1.LabelSelector{}, true},
		{&metav1.LabelSelector{MatchLabels: map[string]string{"team": "a"}}, true},
		{&metav1.LabelSelector{MatchLabels: map[string]string{"team": "b"}}, false},
	} {
		term.NamespaceSelector = test.selector
		check := prepare(cluster, model.NewPod(other))
		if got := !check.passes(cluster.Nodes[0]); got != test.repelled {
			t.Errorf("%v: kept apart %v, want %v", test.selector, got, test.repelled)
		}
	}
}
