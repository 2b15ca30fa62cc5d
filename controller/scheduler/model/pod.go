package model

import (
	"cmp"
	"encoding/json"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	schedulinghelper "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"

	"lighter.dev/lighter/api/v1alpha1"
)

// Pod is a pod as the scheduler sees it.
type Pod struct {
	Object   *corev1.Pod // as last seen; read-only
	UID      types.UID
	Priority int32
	Request  Resources // Pods is 1
	// CPU and Memory are the request for comparing hosts, never zero.
	CPU, Memory int64
	Ports       []Port
	// Group names the pods that should not share a host: those of one
	// controller, or those with equal labels; "" if the pod has neither.
	Group string
	// Images are the names under which nodes may hold the pod's images.
	Images []string

	// Selector is required node affinity; nil if there is none. nodeSelector
	// is read from the object.
	Selector *nodeaffinity.RequiredNodeAffinity
	// PreferredNodes is preferred node affinity; nil if there is none.
	PreferredNodes *nodeaffinity.PreferredSchedulingTerms

	Affinity, AntiAffinity []Term         // required
	PreferredPods          []WeightedTerm // preferred; negative for anti-affinity
	Spread                 []Constraint

	alike, repeller string // keys of Cluster's indexes
}

// Port is a port of the host that a pod claims.
type Port struct {
	IP       string // "0.0.0.0" claims the port on every address
	Protocol corev1.Protocol
	Number   int32
}

// Term selects pods and says on which topology (a node label) they count.
type Term struct {
	Key        string
	selector   labels.Selector
	namespaces []string        // in these,
	nsSelector labels.Selector // or in namespaces with such labels
}

// WeightedTerm is a preference.
type WeightedTerm struct {
	Term
	Weight int64
}

// Constraint is a topologySpreadConstraint.
type Constraint struct {
	Term
	Hard         bool // DoNotSchedule
	MaxSkew      int
	MinDomains   int
	SelfMatch    bool // the pod itself counts
	IgnoreAffine bool // nodeAffinityPolicy: Ignore
	HonorTaints  bool // nodeTaintsPolicy is not Ignore
}

// NewPod parses a pod. What cannot be parsed (the API server validates all of
// it) selects nothing.
func NewPod(pod *corev1.Pod) *Pod {
	p := &Pod{
		Object:   pod,
		UID:      pod.UID,
		Priority: schedulinghelper.PodPriority(pod),
		Request:  podRequest(pod),
		Group:    group(pod),
		Ports:    hostPorts(&pod.Spec),
		Images:   imageNames(pod),
		alike:    alikeKey(pod),
		repeller: repellerKey(pod),
	}
	p.CPU, p.Memory = p.Request.MilliCPU, p.Request.Memory
	if p.CPU == 0 {
		p.CPU = assumedMilliCPU
	}
	if p.Memory == 0 {
		p.Memory = assumedMemory
	}
	affinity := pod.Spec.Affinity
	if affinity != nil && affinity.NodeAffinity != nil {
		p.Selector = new(nodeaffinity.NewRequiredNodeAffinity(nil, affinity))
	}
	if affinity != nil {
		p.parseAffinity(affinity)
	}
	for i := range pod.Spec.TopologySpreadConstraints {
		p.Spread = append(p.Spread, constraint(pod, &pod.Spec.TopologySpreadConstraints[i]))
	}
	return p
}

func (p *Pod) parseAffinity(affinity *corev1.Affinity) {
	if node := affinity.NodeAffinity; node != nil && len(node.PreferredDuringSchedulingIgnoredDuringExecution) > 0 {
		if terms, err := nodeaffinity.NewPreferredSchedulingTerms(node.PreferredDuringSchedulingIgnoredDuringExecution); err == nil {
			p.PreferredNodes = terms
		}
	}
	namespace := p.Object.Namespace
	if pods := affinity.PodAffinity; pods != nil {
		p.Affinity = terms(namespace, pods.RequiredDuringSchedulingIgnoredDuringExecution)
		for i := range pods.PreferredDuringSchedulingIgnoredDuringExecution {
			weighted := &pods.PreferredDuringSchedulingIgnoredDuringExecution[i]
			p.PreferredPods = append(p.PreferredPods, WeightedTerm{term(namespace, &weighted.PodAffinityTerm), int64(weighted.Weight)})
		}
	}
	if pods := affinity.PodAntiAffinity; pods != nil {
		p.AntiAffinity = terms(namespace, pods.RequiredDuringSchedulingIgnoredDuringExecution)
		for i := range pods.PreferredDuringSchedulingIgnoredDuringExecution {
			weighted := &pods.PreferredDuringSchedulingIgnoredDuringExecution[i]
			p.PreferredPods = append(p.PreferredPods, WeightedTerm{term(namespace, &weighted.PodAffinityTerm), -int64(weighted.Weight)})
		}
	}
}

func terms(namespace string, from []corev1.PodAffinityTerm) []Term {
	parsed := make([]Term, 0, len(from))
	for i := range from {
		parsed = append(parsed, term(namespace, &from[i]))
	}
	return parsed
}

func term(namespace string, from *corev1.PodAffinityTerm) Term {
	t := Term{Key: from.TopologyKey, selector: parse(from.LabelSelector), namespaces: from.Namespaces, nsSelector: parse(from.NamespaceSelector)}
	if len(from.Namespaces) == 0 && from.NamespaceSelector == nil {
		t.namespaces = []string{namespace}
	}
	return t
}

func parse(selector *metav1.LabelSelector) labels.Selector {
	parsed, err := metav1.LabelSelectorAsSelector(selector) // nil selects nothing
	if err != nil {
		return labels.Nothing()
	}
	return parsed
}

func constraint(pod *corev1.Pod, from *corev1.TopologySpreadConstraint) Constraint {
	selector := parse(from.LabelSelector)
	for _, key := range from.MatchLabelKeys {
		if value, ok := pod.Labels[key]; ok {
			if more, err := labels.NewRequirement(key, "in", []string{value}); err == nil {
				selector = selector.Add(*more)
			}
		}
	}
	c := Constraint{
		Term:      Term{Key: from.TopologyKey, selector: selector, namespaces: []string{pod.Namespace}, nsSelector: labels.Nothing()},
		Hard:      from.WhenUnsatisfiable == corev1.DoNotSchedule,
		MaxSkew:   int(from.MaxSkew),
		SelfMatch: selector.Matches(labels.Set(pod.Labels)),
	}
	c.MinDomains = 1
	if from.MinDomains != nil {
		c.MinDomains = int(*from.MinDomains)
	}
	c.IgnoreAffine = from.NodeAffinityPolicy != nil && *from.NodeAffinityPolicy == corev1.NodeInclusionPolicyIgnore
	c.HonorTaints = from.NodeTaintsPolicy != nil && *from.NodeTaintsPolicy == corev1.NodeInclusionPolicyHonor
	return c
}

// group is the controller's UID, or the namespace and labels.
func group(pod *corev1.Pod) string {
	if ref := metav1.GetControllerOfNoCopy(pod); ref != nil {
		return string(ref.UID)
	}
	if len(pod.Labels) == 0 {
		return ""
	}
	return pod.Namespace + "/" + labels.Set(pod.Labels).String()
}

func hostPorts(spec *corev1.PodSpec) []Port {
	var ports []Port
	collect := func(container *corev1.Container) {
		for _, port := range container.Ports {
			if port.HostPort > 0 {
				ports = append(ports, Port{cmp.Or(port.HostIP, anyAddress), cmp.Or(port.Protocol, corev1.ProtocolTCP), port.HostPort})
			}
		}
	}
	for i := range spec.Containers {
		collect(&spec.Containers[i])
	}
	for i := range spec.InitContainers {
		if policy := spec.InitContainers[i].RestartPolicy; policy != nil && *policy == corev1.ContainerRestartPolicyAlways {
			collect(&spec.InitContainers[i])
		}
	}
	return ports
}

// imageNames lists the pod's images as nodes report them: "name@digest" for
// one that is pinned, the full tagged name for others.
func imageNames(pod *corev1.Pod) []string {
	pins := map[string]string{}
	if annotation := pod.Annotations[v1alpha1.DigestsAnnotation]; annotation != "" {
		if json.Unmarshal([]byte(annotation), &pins) != nil {
			pins = nil // the agent tells its author
		}
	}
	names := make([]string, 0, len(pod.Spec.Containers))
	for i := range pod.Spec.Containers {
		name := pod.Spec.Containers[i].Image
		if ref, err := v1alpha1.NormalizeTag(name); err == nil {
			name = ref
		}
		if digest := pins[name]; digest != "" {
			if colon := strings.LastIndexByte(name, ':'); colon > strings.LastIndexByte(name, '/') {
				name = name[:colon] + "@" + digest
			}
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return slices.Compact(names)
}
