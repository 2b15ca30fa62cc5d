package model

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"lighter.dev/lighter/api/v1alpha1"
)

func node(name string) *corev1.Node {
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelTopologyZone: "z"}},
		Status: corev1.NodeStatus{
			Conditions:  []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}},
			Allocatable: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("4")},
			Images:      []corev1.ContainerImage{{Names: []string{"image"}, SizeBytes: 1}},
		},
	}
}

func pod(name string) *Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "ns", UID: types.UID(name), Labels: map[string]string{"app": "web"}}}
	p.Spec.Containers = []corev1.Container{{
		Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("500m"), "example.com/gpu": resource.MustParse("1")}},
		Ports:     []corev1.ContainerPort{{HostPort: 80}},
	}}
	p.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{{TopologyKey: "k"}}}}
	return NewPod(p)
}

func TestPlaceAndRemoveLeaveNoTrace(t *testing.T) {
	c := NewCluster()
	c.Place(pod("early"), "a") // its node is not known yet
	if len(c.Nodes) != 0 {
		t.Error("a node that nobody has seen takes part")
	}
	if change := c.SetNode(node("a")); change != NodeAdded {
		t.Errorf("change %b for a new node", change)
	}
	c.SetNode(node("b"))
	a := c.Nodes[0]
	c.Place(pod("p"), "a")
	c.Place(pod("p"), "a") // seen again
	if a.Used.MilliCPU != 1000 || a.Used.Pods != 2 || a.Used.Other["example.com/gpu"] != 2 || a.Memory != 2*assumedMemory {
		t.Errorf("used %+v, memory %d", a.Used, a.Memory)
	}
	if got := c.InZone("ns/app=web", "z"); got != 2 {
		t.Errorf("%d pods of the group in the zone, want 2", got)
	}
	c.Place(pod("p"), "b") // moved
	if _, at := c.Placed("p"); at != "b" || a.Used.Pods != 1 {
		t.Errorf("on %s; %d pods are left on a", at, a.Used.Pods)
	}
	if !a.PortsTaken([]Port{{IP: "10.0.0.1", Protocol: corev1.ProtocolTCP, Number: 80}}) || a.PortsTaken([]Port{{IP: anyAddress, Protocol: corev1.ProtocolUDP, Number: 80}}) {
		t.Error("host ports are not told apart by protocol only")
	}
	for _, uid := range []types.UID{"p", "early"} {
		if !c.Remove(uid) || c.Remove(uid) {
			t.Errorf("removing %s", uid)
		}
	}
	if a.Used.MilliCPU != 0 || a.Used.Pods != 0 || a.CPU != 0 || len(a.Groups)+len(a.ports)+len(a.pods) != 0 {
		t.Errorf("left behind: %+v", a)
	}
	if len(c.pods)+len(c.alike)+len(c.repellers)+len(c.groupZones) != 0 {
		t.Errorf("left behind: %d pods, %d sets, %d repellers, %d zones", len(c.pods), len(c.alike), len(c.repellers), len(c.groupZones))
	}
	c.RemoveNode("a")
	c.RemoveNode("b")
	if len(c.Nodes)+len(c.byName)+len(c.ImageNodes) != 0 {
		t.Errorf("left behind: %d nodes, %d images", len(c.byName), len(c.ImageNodes))
	}
}

func TestSetNodeTellsWhatChanged(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*corev1.Node)
		want   Change
	}{
		{"nothing", func(*corev1.Node) {}, 0},
		{"heartbeat", func(n *corev1.Node) { n.ResourceVersion = "2"; n.Status.Conditions[0].LastHeartbeatTime = metav1.Now() }, 0},
		{"images", func(n *corev1.Node) { n.Status.Images = nil }, 0},
		{"capacity", func(n *corev1.Node) { n.Status.Allocatable[corev1.ResourceCPU] = resource.MustParse("8") }, NodeCapacity},
		{"labels", func(n *corev1.Node) { n.Labels["x"] = "y" }, NodeLabels},
		{"cordon", func(n *corev1.Node) { n.Spec.Unschedulable = true }, NodeTaints},
		{"not ready", func(n *corev1.Node) { n.Status.Conditions[0].Status = corev1.ConditionUnknown }, NodeTaints},
		{"taint", func(n *corev1.Node) { n.Spec.Taints = []corev1.Taint{{Key: "k", Effect: corev1.TaintEffectNoExecute}} }, NodeTaints},
	} {
		c := NewCluster()
		c.SetNode(node("a"))
		after := node("a")
		test.change(after)
		if got := c.SetNode(after); got != test.want {
			t.Errorf("%s: change %b, want %b", test.name, got, test.want)
		}
	}
}

func TestZoneOfANodeMayChange(t *testing.T) {
	c := NewCluster()
	c.SetNode(node("a"))
	c.Place(pod("p"), "a")
	moved := node("a")
	moved.Labels[corev1.LabelTopologyZone] = "y"
	c.SetNode(moved)
	if c.InZone("ns/app=web", "z") != 0 || c.InZone("ns/app=web", "y") != 1 {
		t.Error("pods do not move with their node's zone")
	}
	if got := c.Domains(corev1.LabelTopologyZone); !maps.Equal(got, map[string]int{"y": 1}) {
		t.Errorf("domains %v", got)
	}
}

func TestSelectorsSeeSetsOfLikePods(t *testing.T) {
	c := NewCluster()
	c.SetNode(node("a"))
	for i := range 5 {
		c.Place(pod(fmt.Sprint("p", i)), "a")
	}
	sets := 0
	c.Selected(&Term{selector: labels.Everything(), namespaces: []string{"ns"}, nsSelector: labels.Nothing()}, func(set *Alike) {
		sets++
		if set.Nodes[c.Nodes[0]] != 5 {
			t.Errorf("%d pods in the set", set.Nodes[c.Nodes[0]])
		}
	})
	if sets != 1 {
		t.Errorf("%d sets, want 1", sets)
	}
}

func TestImageNames(t *testing.T) {
	p := &corev1.Pod{}
	p.Spec.Containers = []corev1.Container{{Image: "shop"}, {Image: "shop:v1"}, {Image: "host.example:5000/else"}}
	p.Annotations = map[string]string{v1alpha1.DigestsAnnotation: `{"docker.io/library/shop:v1":"sha256:abc"}`}
	want := []string{"docker.io/library/shop:latest", "docker.io/library/shop@sha256:abc", "host.example:5000/else:latest"}
	if got := imageNames(p); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
