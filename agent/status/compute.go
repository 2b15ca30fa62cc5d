package status

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
)

// Input is what the pod worker knows about its pod.
type Input struct {
	Pod *corev1.Pod
	// Init and Main are in the order of the spec.
	Init, Main []corev1.ContainerStatus
	// NetworkReady: the namespaces exist and the addresses are known.
	NetworkReady    bool
	PodIPs, HostIPs []netip.Addr
	StartTime       time.Time
	// Failed, with its reason, ends the pod whatever its containers say
	// (refused at admission, deadline exceeded).
	Failed          bool
	Reason, Message string
	// Stopped: nothing runs any more and nothing will be restarted.
	Stopped bool
}

// Compute derives phase and conditions, as the API defines them, from the
// containers. It is pure but for the transition times of conditions that changed.
func Compute(in Input, now time.Time) corev1.PodStatus {
	old := in.Pod.Status
	out := corev1.PodStatus{
		ObservedGeneration:    in.Pod.Generation,
		Phase:                 Phase(in.Pod, in.Init, in.Main, in.Stopped),
		QOSClass:              old.QOSClass,
		InitContainerStatuses: in.Init,
		ContainerStatuses:     in.Main,
		NominatedNodeName:     old.NominatedNodeName,
		Reason:                in.Reason,
		Message:               in.Message,
	}
	switch {
	case old.Phase == corev1.PodFailed || old.Phase == corev1.PodSucceeded:
		// There is no way back from a terminal phase.
		out.Phase = old.Phase
		if out.Reason == "" {
			out.Reason, out.Message = old.Reason, old.Message
		}
	case in.Failed && in.Stopped:
		out.Phase = corev1.PodFailed
	}
	if out.Phase == corev1.PodFailed && !slices.ContainsFunc(slices.Concat(in.Init, in.Main), tried) {
		// A pod that was refused has no containers that wait for anything.
		out.InitContainerStatuses, out.ContainerStatuses = nil, nil
	}
	if !in.StartTime.IsZero() {
		out.StartTime = &metav1.Time{Time: in.StartTime.Truncate(time.Second)}
	}
	addAddresses(&out, in.PodIPs, in.HostIPs)
	out.Conditions = conditions(in, &out, now)
	return out
}

// tried: it runs, or has run.
func tried(c corev1.ContainerStatus) bool {
	return c.State.Waiting == nil || c.LastTerminationState.Terminated != nil
}

func addAddresses(out *corev1.PodStatus, pod, host []netip.Addr) {
	for _, ip := range pod {
		out.PodIPs = append(out.PodIPs, corev1.PodIP{IP: ip.String()})
	}
	for _, ip := range host {
		out.HostIPs = append(out.HostIPs, corev1.HostIP{IP: ip.String()})
	}
	if len(pod) > 0 {
		out.PodIP = pod[0].String()
	}
	if len(host) > 0 {
		out.HostIP = host[0].String()
	}
}

// conditions keeps those of other writers (readiness gates, disruption) and
// replaces ours.
func conditions(in Input, st *corev1.PodStatus, now time.Time) []corev1.PodCondition {
	containersReady := containersReady(in, st.Phase)
	ours := []corev1.PodCondition{
		sandboxReady(in),
		initialized(in, st.Phase),
		ready(in.Pod, containersReady),
		containersReady,
		{Type: corev1.PodScheduled, Status: corev1.ConditionTrue},
	}
	var out []corev1.PodCondition
	for _, c := range ours {
		c.ObservedGeneration = in.Pod.Generation
		c.LastTransitionTime = metav1.Time{Time: now.Truncate(time.Second)}
		if _, old := podutil.GetPodCondition(&in.Pod.Status, c.Type); old != nil && old.Status == c.Status {
			c.LastTransitionTime = old.LastTransitionTime
		}
		out = append(out, c)
	}
	for _, c := range in.Pod.Status.Conditions {
		if !slices.ContainsFunc(ours, func(o corev1.PodCondition) bool { return o.Type == c.Type }) {
			out = append(out, c)
		}
	}
	return out
}

func sandboxReady(in Input) corev1.PodCondition {
	return corev1.PodCondition{Type: corev1.PodReadyToStartContainers, Status: boolean(in.NetworkReady)}
}

func initialized(in Input, phase corev1.PodPhase) corev1.PodCondition {
	c := corev1.PodCondition{Type: corev1.PodInitialized, Status: corev1.ConditionTrue}
	if phase == corev1.PodSucceeded {
		c.Reason = "PodCompleted"
		return c
	}
	if anyStarted(in.Main) {
		return c
	}
	var incomplete []string
	for i := range in.Pod.Spec.InitContainers {
		spec := &in.Pod.Spec.InitContainers[i]
		st := find(in.Init, spec.Name)
		if podutil.IsRestartableInitContainer(spec) {
			if st == nil || st.Started == nil || !*st.Started {
				incomplete = append(incomplete, spec.Name)
			}
		} else if st == nil || !st.Ready {
			incomplete = append(incomplete, spec.Name)
		}
	}
	if len(incomplete) > 0 {
		c.Status = corev1.ConditionFalse
		c.Reason = "ContainersNotInitialized"
		c.Message = fmt.Sprintf("containers with incomplete status: %s", incomplete)
	}
	return c
}

func containersReady(in Input, phase corev1.PodPhase) corev1.PodCondition {
	c := corev1.PodCondition{Type: corev1.ContainersReady, Status: corev1.ConditionFalse}
	switch phase {
	case corev1.PodSucceeded:
		c.Reason = "PodCompleted"
		return c
	case corev1.PodFailed:
		c.Reason = "PodFailed"
		return c
	}
	var unready []string
	for i := range in.Pod.Spec.InitContainers {
		spec := &in.Pod.Spec.InitContainers[i]
		if podutil.IsRestartableInitContainer(spec) {
			if st := find(in.Init, spec.Name); st == nil || !st.Ready {
				unready = append(unready, spec.Name)
			}
		}
	}
	for i := range in.Pod.Spec.Containers {
		if st := find(in.Main, in.Pod.Spec.Containers[i].Name); st == nil || !st.Ready {
			unready = append(unready, in.Pod.Spec.Containers[i].Name)
		}
	}
	if len(unready) > 0 {
		c.Reason = "ContainersNotReady"
		c.Message = fmt.Sprintf("containers with unready status: %s", unready)
		return c
	}
	c.Status = corev1.ConditionTrue
	return c
}

// ready is containersReady and all readiness gates.
func ready(pod *corev1.Pod, containers corev1.PodCondition) corev1.PodCondition {
	c := containers
	c.Type = corev1.PodReady
	if c.Status != corev1.ConditionTrue {
		return c
	}
	var missing []string
	for _, gate := range pod.Spec.ReadinessGates {
		_, have := podutil.GetPodCondition(&pod.Status, gate.ConditionType)
		switch {
		case have == nil:
			missing = append(missing, fmt.Sprintf("corresponding condition of pod readiness gate %q does not exist.", gate.ConditionType))
		case have.Status != corev1.ConditionTrue:
			missing = append(missing, fmt.Sprintf("the status of pod readiness gate %q is not \"True\", but %v", gate.ConditionType, have.Status))
		}
	}
	if len(missing) > 0 {
		c.Status, c.Reason, c.Message = corev1.ConditionFalse, "ReadinessGatesNotReady", strings.Join(missing, ", ")
	}
	return c
}

func find(all []corev1.ContainerStatus, name string) *corev1.ContainerStatus {
	for i := range all {
		if all[i].Name == name {
			return &all[i]
		}
	}
	return nil
}

func anyStarted(main []corev1.ContainerStatus) bool {
	return slices.ContainsFunc(main, func(s corev1.ContainerStatus) bool {
		return s.State.Running != nil || s.State.Terminated != nil || s.LastTerminationState.Terminated != nil
	})
}

func boolean(b bool) corev1.ConditionStatus {
	if b {
		return corev1.ConditionTrue
	}
	return corev1.ConditionFalse
}
