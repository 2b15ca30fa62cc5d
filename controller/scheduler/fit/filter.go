package fit

import (
	corev1 "k8s.io/api/core/v1"

	"lighter.dev/lighter/controller/scheduler/model"
)

// Reasons, worded as kube-scheduler words them.
const (
	reasonUnschedulable = "node(s) were unschedulable"
	reasonTaint         = "node(s) had untolerated taint(s)"
	reasonSelector      = "node(s) didn't match Pod's node affinity/selector"
	reasonPorts         = "node(s) didn't have free ports for the requested pod ports"
	reasonAffinity      = "node(s) didn't match pod affinity rules"
	reasonAntiAffinity  = "node(s) didn't match pod anti-affinity rules"
	reasonRepelled      = "node(s) didn't satisfy existing pods anti-affinity rules"
	reasonSpread        = "node(s) didn't match pod topology spread constraints"
	reasonSpreadLabel   = "node(s) didn't match pod topology spread constraints (missing required label)"
	reasonTooManyPods   = "Too many pods"
	insufficient        = "Insufficient "
)

// check is one pod against the cluster, with what all its filters need to know.
type check struct {
	cluster  *model.Cluster
	pod      *model.Pod
	affinity *affinity // nil if neither the pod nor any other has rules
	spread   []spread  // hard constraints first
}

func prepare(cluster *model.Cluster, pod *model.Pod) *check {
	c := &check{cluster: cluster, pod: pod}
	c.affinity = prepareAffinity(cluster, pod)
	for i := range pod.Spread {
		c.spread = append(c.spread, c.prepareSpread(&pod.Spread[i]))
	}
	return c
}

// passes tells whether the pod may run on a node. It is the hot path: cheap and
// selective filters come first, and nothing allocates.
func (c *check) passes(node *model.Node) bool {
	return c.hasRoom(node) && c.untolerated(node) == nil && c.selects(node) &&
		!node.PortsTaken(c.pod.Ports) &&
		(c.affinity == nil || c.affinity.refusal(node) == "") &&
		(len(c.spread) == 0 || c.spreadRefusal(node) == "")
}

// hasRoom compares what the pod requests with what is left.
func (c *check) hasRoom(node *model.Node) bool {
	want, has, used := &c.pod.Request, &node.Capacity, &node.Used
	if used.Pods+1 > has.Pods ||
		lacks(want.MilliCPU, has.MilliCPU, used.MilliCPU) ||
		lacks(want.Memory, has.Memory, used.Memory) ||
		lacks(want.Ephemeral, has.Ephemeral, used.Ephemeral) {
		return false
	}
	for name, amount := range want.Other {
		if lacks(amount, has.Other[name], used.Other[name]) {
			return false
		}
	}
	return true
}

// lacks tells whether a request does not fit. Who requests nothing fits on a
// node that is overcommitted.
func lacks(want, has, used int64) bool { return want > 0 && want > has-used }

func (c *check) selects(node *model.Node) bool {
	for key, value := range c.pod.Object.Spec.NodeSelector {
		if has, ok := node.Object.Labels[key]; !ok || has != value {
			return false
		}
	}
	if c.pod.Selector == nil {
		return true
	}
	matches, err := c.pod.Selector.Match(node.Object)
	return matches && err == nil
}

// untolerated is the first taint that keeps the pod away, nil if there is none.
func (c *check) untolerated(node *model.Node) *corev1.Taint {
	for i := range node.Repelling {
		if !tolerates(c.pod.Object.Spec.Tolerations, &node.Repelling[i]) {
			return &node.Repelling[i]
		}
	}
	return nil
}

func tolerates(tolerations []corev1.Toleration, taint *corev1.Taint) bool {
	for i := range tolerations {
		t := &tolerations[i]
		if (t.Effect == "" || t.Effect == taint.Effect) && (t.Key == "" || t.Key == taint.Key) &&
			(t.Operator == corev1.TolerationOpExists ||
				t.Key != "" && (t.Operator == "" || t.Operator == corev1.TolerationOpEqual) && t.Value == taint.Value) {
			return true
		}
	}
	return false
}

// explain collects the reasons of all nodes. Like kube-scheduler it names for
// each node what the first filter says that refuses it.
func (c *check) explain() *Failure {
	failure := &Failure{Nodes: len(c.cluster.Nodes), Reasons: map[string]int{}, Hope: model.NodeAdded}
	for _, node := range c.cluster.Nodes {
		reasons, hope := c.refusals(node)
		for _, reason := range reasons {
			failure.Reasons[reason]++
		}
		failure.Hope |= hope
	}
	return failure
}

// refusals says why a node is refused, and what change could help.
func (c *check) refusals(node *model.Node) ([]string, model.Change) {
	if taint := c.untolerated(node); taint != nil {
		if taint.Key == corev1.TaintNodeUnschedulable {
			return []string{reasonUnschedulable}, model.NodeTaints
		}
		return []string{reasonTaint}, model.NodeTaints
	}
	if !c.selects(node) {
		return []string{reasonSelector}, model.NodeLabels
	}
	if node.PortsTaken(c.pod.Ports) {
		return []string{reasonPorts}, model.PodGone
	}
	if lacking := c.lacking(node); len(lacking) > 0 {
		return lacking, model.PodGone | model.NodeCapacity
	}
	if len(c.spread) > 0 {
		if reason := c.spreadRefusal(node); reason != "" {
			return []string{reason}, model.PodGone | model.PodHere | model.NodeLabels | model.NodeTaints
		}
	}
	if c.affinity != nil {
		if reason := c.affinity.refusal(node); reason != "" {
			return []string{reason}, model.PodGone | model.PodHere | model.NodeLabels
		}
	}
	return nil, 0
}

// lacking names every resource of which the node has too little left.
func (c *check) lacking(node *model.Node) []string {
	want, has, used := &c.pod.Request, &node.Capacity, &node.Used
	var reasons []string
	if used.Pods+1 > has.Pods {
		reasons = append(reasons, reasonTooManyPods)
	}
	if lacks(want.MilliCPU, has.MilliCPU, used.MilliCPU) {
		reasons = append(reasons, insufficient+string(corev1.ResourceCPU))
	}
	if lacks(want.Memory, has.Memory, used.Memory) {
		reasons = append(reasons, insufficient+string(corev1.ResourceMemory))
	}
	if lacks(want.Ephemeral, has.Ephemeral, used.Ephemeral) {
		reasons = append(reasons, insufficient+string(corev1.ResourceEphemeralStorage))
	}
	for name, amount := range want.Other {
		if lacks(amount, has.Other[name], used.Other[name]) {
			reasons = append(reasons, insufficient+name)
		}
	}
	return reasons
}
