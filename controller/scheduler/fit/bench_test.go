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

// bigCluster has n nodes in three zones, as kubemark has them: 32 CPUs, 256 GB,
// 110 pods.
func bigCluster(n int) *model.Cluster {
	cluster := model.NewCluster()
	for i := range n {
		cluster.SetNode(&corev1.Node{
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("node-%05d", i), Labels: map[string]string{
				corev1.LabelHostname:     fmt.Sprintf("node-%05d", i),
				corev1.LabelTopologyZone: fmt.Sprintf("zone-%d", i%3),
			}},
			Status: corev1.NodeStatus{
				Allocatable: corev1.ResourceList{
					corev1.ResourceCPU: resource.MustParse("32"), corev1.ResourceMemory: resource.MustParse("256Gi"),
					corev1.ResourcePods: resource.MustParse("110"),
				},
				Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}},
			},
		})
	}
	return cluster
}

// benchPod is a pod of one of a hundred owners.
func benchPod(i int) *corev1.Pod {
	owner := fmt.Sprintf("owner-%d", i%100)
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: fmt.Sprintf("pod-%d", i), Namespace: "bench", UID: types.UID(fmt.Sprintf("uid-%d", i)),
			Labels:          map[string]string{"app": owner},
			OwnerReferences: []metav1.OwnerReference{{UID: types.UID(owner), Controller: new(true), Kind: "ReplicaSet", Name: owner}},
		},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{
			Image: "registry.example/app:v1",
			Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{
				corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("200Mi"),
			}},
		}}},
	}
}

// run schedules pods one after another, assuming each on its node, and reports
// pods/s: parsing the pod, the decision and the bookkeeping.
func run(b *testing.B, nodes int, shape func(*corev1.Pod)) {
	cluster := bigCluster(nodes)
	pods := make([]*corev1.Pod, b.N)
	for i := range pods {
		pods[i] = benchPod(i)
		shape(pods[i])
	}
	var scratch Scratch
	start, placed := 0, 0
	b.ReportAllocs()
	b.ResetTimer()
	for i, object := range pods {
		pod := model.NewPod(object)
		decision := Schedule(cluster, pod, start, &scratch)
		start = (start + decision.Examined) % nodes
		if decision.Node != "" {
			cluster.Place(pod, decision.Node)
			placed++
		}
		if i%(20*nodes) == 20*nodes-1 { // never let the cluster fill up
			b.StopTimer()
			cluster = bigCluster(nodes)
			b.StartTimer()
		}
	}
	b.StopTimer()
	if placed != b.N {
		b.Fatalf("%d of %d pods found a node", placed, b.N)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "pods/s")
}

func BenchmarkSchedule5000Nodes(b *testing.B) {
	b.Run("plain", func(b *testing.B) { run(b, 5000, func(*corev1.Pod) {}) })
	b.Run("selector", func(b *testing.B) {
		run(b, 5000, func(pod *corev1.Pod) { pod.Spec.NodeSelector = map[string]string{corev1.LabelTopologyZone: "zone-1"} })
	})
	b.Run("spread", func(b *testing.B) {
		run(b, 5000, func(pod *corev1.Pod) {
			pod.Spec.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{{
				MaxSkew: 5, TopologyKey: corev1.LabelTopologyZone, WhenUnsatisfiable: corev1.DoNotSchedule,
				LabelSelector: &metav1.LabelSelector{MatchLabels: pod.Labels},
			}}
		})
	})
}

func BenchmarkSchedule3Nodes(b *testing.B) {
	run(b, 3, func(pod *corev1.Pod) { pod.Spec.Containers[0].Resources.Requests = nil })
}
