package pod

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	resourcehelper "k8s.io/component-helpers/resource"
)

// admit is the host's own check of a new pod against those it has: the
// scheduler may have decided on old facts, or somebody set spec.nodeName by
// hand. nil means welcome. The reasons are kubelet's.
func admit(pod *corev1.Pod, others []*corev1.Pod, allocatable corev1.ResourceList) *Failure {
	if f := portsFree(pod, others); f != nil {
		return f
	}
	if limit, ok := allocatable[corev1.ResourcePods]; ok && int64(len(others))+1 > limit.Value() {
		return &Failure{"OutOfpods", fmt.Sprintf("Pod was rejected: Node didn't have enough resource: pods, requested: 1, used: %d, capacity: %d", len(others), limit.Value())}
	}
	used := corev1.ResourceList{}
	for _, o := range others {
		for name, q := range resourcehelper.PodRequests(o, resourcehelper.PodResourcesOptions{}) {
			sum := used[name]
			sum.Add(q)
			used[name] = sum
		}
	}
	for name, want := range resourcehelper.PodRequests(pod, resourcehelper.PodResourcesOptions{}) {
		limit, known := allocatable[name]
		if want.IsZero() || !known && (name == corev1.ResourceCPU || name == corev1.ResourceMemory || name == corev1.ResourceEphemeralStorage) {
			continue
		}
		sum := used[name]
		have := sum.DeepCopy()
		sum.Add(want)
		if sum.Cmp(limit) > 0 {
			return &Failure{"OutOf" + string(name), fmt.Sprintf("Pod was rejected: Node didn't have enough resource: %s, requested: %s, used: %s, capacity: %s", name, want.String(), have.String(), limit.String())}
		}
	}
	return nil
}

// hostPort is a published port; an empty address means all.
type hostPort struct {
	protocol corev1.Protocol
	ip       string
	port     int32
}

func (p hostPort) clashes(q hostPort) bool {
	return p.protocol == q.protocol && p.port == q.port && (p.ip == q.ip || p.ip == "" || q.ip == "")
}

func portsFree(pod *corev1.Pod, others []*corev1.Pod) *Failure {
	for _, want := range hostPorts(pod) {
		for _, o := range others {
			for _, have := range hostPorts(o) {
				if want.clashes(have) {
					return &Failure{"NodePorts", fmt.Sprintf("Pod was rejected: host port %d/%s is in use by pod %s/%s", want.port, want.protocol, o.Namespace, o.Name)}
				}
			}
		}
	}
	return nil
}

func hostPorts(pod *corev1.Pod) []hostPort {
	var out []hostPort
	for _, c := range pod.Spec.Containers {
		for _, p := range c.Ports {
			port := hostPort{p.Protocol, p.HostIP, p.HostPort}
			if port.port == 0 && pod.Spec.HostNetwork {
				port.port = p.ContainerPort
			}
			if port.port == 0 {
				continue
			}
			if port.protocol == "" {
				port.protocol = corev1.ProtocolTCP
			}
			if port.ip == "0.0.0.0" || port.ip == "::" {
				port.ip = ""
			}
			out = append(out, port)
		}
	}
	return out
}
