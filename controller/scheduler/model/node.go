package model

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

const anyAddress = "0.0.0.0"

// Node is a node and what its pods use.
type Node struct {
	Object *corev1.Node // as last seen; nil while only its pods are known
	Name   string
	Zone   string // label topology.kubernetes.io/zone

	Capacity Resources // allocatable
	Used     Resources
	// CPU and Memory are the sums of the pods' figures for comparing hosts.
	CPU, Memory int64

	// Repelling are the taints that keep pods away, Discouraging those that
	// prefer to (PreferNoSchedule). Being cordoned or not ready counts as the
	// taint that says so, from the moment the condition is seen.
	Repelling, Discouraging []corev1.Taint

	Images map[string]int64 // bytes by name
	Groups map[string]int   // pods by Pod.Group
	pods   map[types.UID]*Pod
	ports  map[Port]int
}

func newNode(name string) *Node {
	return &Node{Name: name, Groups: map[string]int{}, pods: map[types.UID]*Pod{}, ports: map[Port]int{}}
}

func (n *Node) set(node *corev1.Node) {
	n.Object = node
	n.Zone = node.Labels[corev1.LabelTopologyZone]
	n.Capacity = resourcesOf(node.Status.Allocatable)
	n.Repelling, n.Discouraging = nil, nil
	for _, taint := range node.Spec.Taints {
		if taint.Effect == corev1.TaintEffectPreferNoSchedule {
			n.Discouraging = append(n.Discouraging, taint)
		} else {
			n.Repelling = append(n.Repelling, taint)
		}
	}
	if node.Spec.Unschedulable {
		n.repel(corev1.TaintNodeUnschedulable)
	}
	if !isReady(node) {
		n.repel(corev1.TaintNodeNotReady)
	}
	n.Images = make(map[string]int64, len(node.Status.Images))
	for _, image := range node.Status.Images {
		for _, name := range image.Names {
			n.Images[name] = image.SizeBytes
		}
	}
}

func (n *Node) repel(key string) {
	for _, taint := range n.Repelling {
		if taint.Key == key && taint.Effect == corev1.TaintEffectNoSchedule {
			return
		}
	}
	n.Repelling = append(n.Repelling, corev1.Taint{Key: key, Effect: corev1.TaintEffectNoSchedule})
}

func isReady(node *corev1.Node) bool {
	for i := range node.Status.Conditions {
		if node.Status.Conditions[i].Type == corev1.NodeReady {
			return node.Status.Conditions[i].Status == corev1.ConditionTrue
		}
	}
	return false
}

// add accounts for a pod (sign 1) or for its end (sign -1).
func (n *Node) add(pod *Pod, sign int) {
	n.Used.add(&pod.Request, int64(sign))
	n.CPU += int64(sign) * pod.CPU
	n.Memory += int64(sign) * pod.Memory
	bump(n.Groups, pod.Group, sign)
	for _, port := range pod.Ports {
		bump(n.ports, port, sign)
	}
	if sign > 0 {
		n.pods[pod.UID] = pod
	} else {
		delete(n.pods, pod.UID)
	}
}

func bump[K comparable](counts map[K]int, key K, by int) {
	if counts[key] += by; counts[key] <= 0 {
		delete(counts, key)
	}
}

// PortsTaken tells whether one of the ports is in use on the node. A port on
// one address clashes with the same port on all addresses.
func (n *Node) PortsTaken(ports []Port) bool {
	if len(ports) == 0 || len(n.ports) == 0 {
		return false
	}
	for _, want := range ports {
		for taken := range n.ports {
			if taken.Number == want.Number && taken.Protocol == want.Protocol &&
				(taken.IP == want.IP || taken.IP == anyAddress || want.IP == anyAddress) {
				return true
			}
		}
	}
	return false
}
