package pod

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	resourcehelper "k8s.io/component-helpers/resource"
)

// containerID names an attempt: unique on the host, and tells whose it is.
func containerID(uid types.UID, name string, attempt int) string {
	return string(uid) + "_" + name + "_" + strconv.Itoa(attempt)
}

// podOf is the pod's UID in a container ID.
func podOf(id string) types.UID {
	uid, _, _ := strings.Cut(id, "_")
	return types.UID(uid)
}

// cgroupPath is the pod's cgroup, grouped by QoS class as kubelet does.
// Guaranteed pods are beside the groups of the other classes.
func cgroupPath(pod *corev1.Pod) string {
	leaf := "pod" + string(pod.UID)
	switch qosClass(pod) {
	case corev1.PodQOSGuaranteed:
		return leaf
	case corev1.PodQOSBurstable:
		return "burstable/" + leaf
	}
	return "besteffort/" + leaf
}

// qosClass trusts the API server, which set it when the pod was created.
func qosClass(pod *corev1.Pod) corev1.PodQOSClass {
	if pod.Status.QOSClass != "" {
		return pod.Status.QOSClass
	}
	guaranteed, some := true, false
	for _, c := range allContainers(pod) {
		for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
			request, limit := c.Resources.Requests[name], c.Resources.Limits[name]
			some = some || !request.IsZero() || !limit.IsZero()
			guaranteed = guaranteed && !limit.IsZero() && (request.IsZero() || request.Cmp(limit) == 0)
		}
	}
	switch {
	case !some:
		return corev1.PodQOSBestEffort
	case guaranteed:
		return corev1.PodQOSGuaranteed
	}
	return corev1.PodQOSBurstable
}

// podLimits bound all containers of the pod together. A limit holds for the
// pod only if every container has one.
func podLimits(pod *corev1.Pod) *corev1.ResourceRequirements {
	out := &corev1.ResourceRequirements{
		Requests: resourcehelper.PodRequests(pod, resourcehelper.PodResourcesOptions{}),
		Limits:   corev1.ResourceList{},
	}
	for name, limit := range resourcehelper.PodLimits(pod, resourcehelper.PodResourcesOptions{}) {
		if allLimited(pod, name) {
			out.Limits[name] = limit
		}
	}
	return out
}

func allLimited(pod *corev1.Pod, name corev1.ResourceName) bool {
	if pod.Spec.Resources != nil {
		if q, ok := pod.Spec.Resources.Limits[name]; ok && !q.IsZero() {
			return true
		}
	}
	return !slices.ContainsFunc(allContainers(pod), func(c corev1.Container) bool {
		q := c.Resources.Limits[name]
		return q.IsZero()
	})
}

// oomScore makes the kernel kill first who promised least: best effort before
// burstable before guaranteed (Kubernetes' node-pressure documentation).
func oomScore(pod *corev1.Pod, c *corev1.Container, allocatable corev1.ResourceList) int {
	switch qosClass(pod) {
	case corev1.PodQOSGuaranteed:
		return -997
	case corev1.PodQOSBestEffort:
		return 1000
	}
	capacity := allocatable.Memory().Value()
	if capacity <= 0 {
		return 999
	}
	score := 1000 - 1000*c.Resources.Requests.Memory().Value()/capacity
	return int(min(max(score, 3), 999))
}

// checkUser refuses a container that must not run as root but would.
func checkUser(pod *corev1.Pod, c *corev1.Container, imageUser string) error {
	var nonRoot *bool
	var user *int64
	if s := pod.Spec.SecurityContext; s != nil {
		nonRoot, user = s.RunAsNonRoot, s.RunAsUser
	}
	if s := c.SecurityContext; s != nil {
		if s.RunAsNonRoot != nil {
			nonRoot = s.RunAsNonRoot
		}
		if s.RunAsUser != nil {
			user = s.RunAsUser
		}
	}
	if nonRoot == nil || !*nonRoot {
		return nil
	}
	if user != nil {
		if *user == 0 {
			return fmt.Errorf("container's runAsUser breaks non-root policy (pod: %q, container: %s)", podTitle(pod), c.Name)
		}
		return nil
	}
	name, _, _ := strings.Cut(imageUser, ":")
	id, err := strconv.ParseInt(name, 10, 64)
	switch {
	case name == "" || err == nil && id == 0:
		return fmt.Errorf("container has runAsNonRoot and image will run as root (pod: %q, container: %s)", podTitle(pod), c.Name)
	case err != nil:
		return fmt.Errorf("container has runAsNonRoot and image has non-numeric user (%s), cannot verify user is non-root (pod: %q, container: %s)", name, podTitle(pod), c.Name)
	}
	return nil
}

func allContainers(pod *corev1.Pod) []corev1.Container {
	return slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers)
}
