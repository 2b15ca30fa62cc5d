package model

import (
	"encoding/json"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// Alike are the pods on nodes that no selector can tell apart: same namespace,
// same labels. A cluster has few such sets, so selectors are matched against
// them and not against every pod.
type Alike struct {
	Namespace   string
	Labels      labels.Set
	Terminating bool          // they were asked to stop
	Nodes       map[*Node]int // pods by node
}

// alikeKey identifies the set of a pod within its namespace.
func alikeKey(pod *corev1.Pod) string {
	key := labels.Set(pod.Labels).String()
	if pod.DeletionTimestamp != nil {
		key += "\x00terminating"
	}
	return key
}

func (c *Cluster) countAlike(at *placement, by int) {
	namespace := at.pod.Object.Namespace
	sets := c.alike[namespace]
	if sets == nil {
		sets = map[string]*Alike{}
		c.alike[namespace] = sets
	}
	set := sets[at.pod.alike]
	if set == nil {
		set = &Alike{
			Namespace: namespace, Labels: at.pod.Object.Labels,
			Terminating: at.pod.Object.DeletionTimestamp != nil, Nodes: map[*Node]int{},
		}
		sets[at.pod.alike] = set
	}
	if bump(set.Nodes, at.node, by); len(set.Nodes) > 0 {
		return
	}
	if delete(sets, at.pod.alike); len(sets) == 0 {
		delete(c.alike, namespace)
	}
}

// Matches tells whether a term selects pods with these labels.
func (c *Cluster) Matches(term *Term, namespace string, set labels.Set) bool {
	return c.selects(term, namespace) && term.selector.Matches(set)
}

func (c *Cluster) selects(term *Term, namespace string) bool {
	return slices.Contains(term.namespaces, namespace) ||
		!isNothing(term.nsSelector) && term.nsSelector.Matches(c.namespaces[namespace])
}

func isNothing(selector labels.Selector) bool {
	_, selectable := selector.Requirements()
	return !selectable
}

// Selected calls visit for every set of pods that a term selects.
func (c *Cluster) Selected(term *Term, visit func(set *Alike)) {
	each := func(namespace string) {
		for _, set := range c.alike[namespace] {
			if term.selector.Matches(set.Labels) {
				visit(set)
			}
		}
	}
	if isNothing(term.nsSelector) {
		for _, namespace := range term.namespaces {
			each(namespace)
		}
		return
	}
	for namespace := range c.alike {
		if c.selects(term, namespace) {
			each(namespace)
		}
	}
}

// Repeller are pods on nodes with the same required anti-affinity.
type Repeller struct {
	Terms []Term
	Nodes map[*Node]int // pods by node
}

// repellerKey is "" for a pod without required anti-affinity. Terms without
// namespaces mean the pod's own, so that is part of the key.
func repellerKey(pod *corev1.Pod) string {
	if pod.Spec.Affinity == nil || pod.Spec.Affinity.PodAntiAffinity == nil {
		return ""
	}
	terms := pod.Spec.Affinity.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution
	if len(terms) == 0 {
		return ""
	}
	key, err := json.Marshal(terms)
	if err != nil {
		return string(pod.UID) // a set of its own
	}
	return pod.Namespace + "/" + string(key)
}

func (c *Cluster) countRepeller(at *placement, by int) {
	if at.pod.repeller == "" {
		return
	}
	set := c.repellers[at.pod.repeller]
	if set == nil {
		set = &Repeller{Terms: at.pod.AntiAffinity, Nodes: map[*Node]int{}}
		c.repellers[at.pod.repeller] = set
	}
	if bump(set.Nodes, at.node, by); len(set.Nodes) == 0 {
		delete(c.repellers, at.pod.repeller)
	}
}

// Repellers calls visit for every set of pods with required anti-affinity.
func (c *Cluster) Repellers(visit func(set *Repeller)) {
	for _, set := range c.repellers {
		visit(set)
	}
}
