package model

import (
	corev1 "k8s.io/api/core/v1"
	resourcehelper "k8s.io/component-helpers/resource"
)

// What a pod without requests is counted as when hosts are compared (not when
// they are checked for room): otherwise any number of such pods would pile up
// on one host.
const (
	assumedMilliCPU = 100
	assumedMemory   = 200 << 20
)

// Resources are amounts of what nodes offer and pods request.
type Resources struct {
	MilliCPU  int64
	Memory    int64            // bytes
	Ephemeral int64            // bytes of ephemeral-storage
	Pods      int64            // number of pods
	Other     map[string]int64 // hugepages and extended resources, by name; nil if none
}

func resourcesOf(list corev1.ResourceList) Resources {
	var r Resources
	for name, quantity := range list {
		switch name {
		case corev1.ResourceCPU:
			r.MilliCPU = quantity.MilliValue()
		case corev1.ResourceMemory:
			r.Memory = quantity.Value()
		case corev1.ResourceEphemeralStorage:
			r.Ephemeral = quantity.Value()
		case corev1.ResourcePods:
			r.Pods = quantity.Value()
		default:
			if r.Other == nil {
				r.Other = map[string]int64{}
			}
			r.Other[string(name)] = quantity.Value()
		}
	}
	return r
}

// podRequest is what the pod needs at most at one time: its containers and
// restartable init containers together, or its largest init container, plus the
// overhead of its runtime class.
func podRequest(pod *corev1.Pod) Resources {
	r := resourcesOf(resourcehelper.PodRequests(pod, resourcehelper.PodResourcesOptions{}))
	r.Pods = 1
	return r
}

// add adds (sign 1) or takes away (sign -1).
func (r *Resources) add(other *Resources, sign int64) {
	r.MilliCPU += sign * other.MilliCPU
	r.Memory += sign * other.Memory
	r.Ephemeral += sign * other.Ephemeral
	r.Pods += sign * other.Pods
	for name, amount := range other.Other {
		if r.Other == nil {
			r.Other = map[string]int64{}
		}
		r.Other[name] += sign * amount
	}
}

// equal compares amounts.
func (r *Resources) equal(other *Resources) bool {
	if r.MilliCPU != other.MilliCPU || r.Memory != other.Memory || r.Ephemeral != other.Ephemeral ||
		r.Pods != other.Pods || len(r.Other) != len(other.Other) {
		return false
	}
	for name, amount := range r.Other {
		if other.Other[name] != amount {
			return false
		}
	}
	return true
}
