package apply

import (
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// progress is what one look at a Deployment and its pods tells.
type progress struct {
	line     string    // how far it is
	done     bool      // rolled out
	failed   string    // why it will not go on
	problems []problem // what is wrong with single pods
}

// problem is what keeps a pod from working, and what a person can do about it.
type problem struct {
	pod, reason, message, hint string
}

func (p problem) String() string {
	text := fmt.Sprintf("pod/%s: %s", p.pod, p.reason)
	if p.message != "" {
		text += ": " + p.message
	}
	return text
}

// judge says how far a Deployment is. pods are those of its namespace.
func judge(d *appsv1.Deployment, pods []*corev1.Pod, built digests) progress {
	want := int32(1)
	if d.Spec.Replicas != nil {
		want = *d.Spec.Replicas
	}
	status := d.Status
	stale := int32(0)
	var p progress
	for _, pod := range podsOf(d, pods) {
		if pod.DeletionTimestamp == nil && built.stale(pod) {
			stale++
			continue
		}
		p.problems = append(p.problems, problemsOf(pod)...)
	}
	p.line = fmt.Sprintf("deployment/%s: %d of %d updated, %d available", d.Name, status.UpdatedReplicas, want, status.AvailableReplicas)
	switch {
	case status.ObservedGeneration < d.Generation:
		p.line = fmt.Sprintf("deployment/%s: waiting for the controller", d.Name)
	case d.Spec.Paused:
		p.line, p.done = fmt.Sprintf("deployment/%s: paused", d.Name), true
	case stale > 0 && status.UpdatedReplicas == want:
		p.line = fmt.Sprintf("deployment/%s: %d pods still run the image's previous build", d.Name, stale)
	case status.UpdatedReplicas == want && status.Replicas == want && status.AvailableReplicas >= want:
		p.line, p.done = fmt.Sprintf("deployment/%s: rolled out, %d of %d available", d.Name, status.AvailableReplicas, want), stale == 0
	case status.Replicas > status.UpdatedReplicas:
		p.line += fmt.Sprintf(", %d old", status.Replicas-status.UpdatedReplicas)
	}
	for _, condition := range status.Conditions {
		if !p.done && condition.Type == appsv1.DeploymentProgressing && condition.Status == corev1.ConditionFalse && status.ObservedGeneration >= d.Generation {
			p.failed = condition.Reason + ": " + condition.Message
		}
	}
	return p
}

func podsOf(d *appsv1.Deployment, pods []*corev1.Pod) []*corev1.Pod {
	selector, err := metav1.LabelSelectorAsSelector(d.Spec.Selector)
	if err != nil {
		return nil
	}
	var own []*corev1.Pod
	for _, pod := range pods {
		if pod.Namespace == d.Namespace && selector.Matches(labels.Set(pod.Labels)) {
			own = append(own, pod)
		}
	}
	slices.SortFunc(own, func(a, b *corev1.Pod) int { return strings.Compare(a.Name, b.Name) })
	return own
}

// quiet are reasons to wait that are part of a normal start.
var quiet = []string{"", "ContainerCreating", "PodInitializing"}

// problemsOf finds what keeps a pod from running.
func problemsOf(pod *corev1.Pod) []problem {
	if pod.DeletionTimestamp != nil {
		return nil
	}
	var found []problem
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodScheduled && condition.Status == corev1.ConditionFalse && condition.Reason == corev1.PodReasonUnschedulable {
			found = append(found, problem{pod.Name, condition.Reason, condition.Message, "make room (lower requests, delete pods) or add a host"})
		}
	}
	for _, statuses := range [][]corev1.ContainerStatus{pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses} {
		for _, status := range statuses {
			waiting := status.State.Waiting
			if waiting == nil || slices.Contains(quiet, waiting.Reason) {
				continue
			}
			message := waiting.Message
			if last := status.LastTerminationState.Terminated; last != nil && waiting.Reason == "CrashLoopBackOff" {
				message = fmt.Sprintf("container %s ended with exit code %d (%s), %d restarts", status.Name, last.ExitCode, last.Reason, status.RestartCount)
			}
			found = append(found, problem{pod.Name, waiting.Reason, message, hint(pod, status.Name, waiting.Reason)})
		}
	}
	if pod.Status.Phase == corev1.PodFailed {
		found = append(found, problem{pod.Name, pod.Status.Reason, pod.Status.Message, describe(pod)})
	}
	return found
}

func hint(pod *corev1.Pod, container, reason string) string {
	switch reason {
	case "CrashLoopBackOff":
		return fmt.Sprintf("lighter logs -n %s %s -c %s --previous", pod.Namespace, pod.Name, container)
	case "ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull":
		return "is the image's name right? Is there an Image with that tag ('lighter get images'), or can the hosts reach the registry?"
	case "ImageNotBuilt":
		return fmt.Sprintf("build it: lighter apply the Image (lighter get images -n %s)", pod.Namespace)
	case "CreateContainerConfigError":
		return "create what the message names"
	}
	return describe(pod)
}

func describe(pod *corev1.Pod) string {
	return fmt.Sprintf("lighter describe pod -n %s %s", pod.Namespace, pod.Name)
}
