package containers

import (
	"cmp"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"lighter.dev/lighter/api/v1alpha1"
)

// stage is how far a container is that was asked to run.
type stage int

const (
	underWay stage = iota
	// awaits a client that attaches.
	awaits
	// begun: it runs, or has run.
	begun
)

// refusal is why a container does not run, and the code to end with: Docker's
// 125 for the engine's reasons, 126 and 127 for the command's (as of shells).
type refusal struct {
	code int
	text string
	// ports: those of the host that it publishes are taken.
	ports bool
}

func (r *refusal) Error() string { return r.text }

// The codes of refusals.
const (
	codeEngine        = 125
	codeNotExecutable = 126
	codeNotFound      = 127
)

// stageOf reads a pod whose container should begin; before is the container ID of
// the attempt before, if there was one. doing is for people.
func stageOf(pod *corev1.Pod, before string) (at stage, doing string, err error) {
	status := statusOf(pod)
	fresh := status.ContainerID != "" && status.ContainerID != before
	ended, waiting := status.State.Terminated, status.State.Waiting
	switch {
	case pod.Status.Phase == corev1.PodFailed:
		text := fmt.Sprintf("host %s refuses it: %s: %s", pod.Spec.NodeName, pod.Status.Reason, pod.Status.Message)
		return 0, "", &refusal{code: codeEngine, text: text, ports: pod.Status.Reason == "NodePorts"}
	case pod.Spec.NodeName == "":
		if text := unscheduled(pod); text != "" {
			return 0, "", &refusal{code: codeEngine, text: "no host can run it: " + text, ports: strings.Contains(text, "free ports")}
		}
		return underWay, "waiting for a host", nil
	case fresh && status.State.Running != nil:
		return begun, "", nil
	case fresh && ended != nil && ended.Reason == "StartError":
		return 0, "", notStarted(ended.Message)
	case fresh && ended != nil:
		return begun, "", nil
	case waiting == nil:
		return underWay, "waiting for host " + pod.Spec.NodeName, nil
	case waiting.Reason == v1alpha1.ReasonAwaitsClient:
		return awaits, "", nil
	case waiting.Reason == "CrashLoopBackOff" && fresh:
		return begun, "", nil // it has run and will again
	case refusals[waiting.Reason]:
		return 0, "", &refusal{code: codeEngine, text: fmt.Sprintf("%s: %s", waiting.Reason, cmp.Or(waiting.Message, "image "+status.Image))}
	}
	return underWay, "preparing it on host " + pod.Spec.NodeName, nil
}

// refusals are the reasons of a waiting container that a user has to do something
// about.
var refusals = map[string]bool{
	"ErrImagePull": true, "ImagePullBackOff": true, "InvalidImageName": true, "ErrImageNeverPull": true, "ImageNotBuilt": true,
	"CreateContainerConfigError": true, "CreateContainerError": true, "RunContainerError": true,
}

// unscheduled is the scheduler's word, "" if it has not spoken.
func unscheduled(pod *corev1.Pod) string {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse && c.Reason == corev1.PodReasonUnschedulable {
			return c.Message
		}
	}
	return ""
}

// notStarted tells a command that is missing from one that cannot be executed, and
// from a user that the image does not know.
func notStarted(message string) *refusal {
	if strings.Contains(message, "the image's /etc/") {
		return &refusal{code: codeEngine, text: message}
	}
	for _, missing := range []string{"not found", "no such file", "No such file"} {
		if strings.Contains(message, missing) {
			return &refusal{code: codeNotFound, text: message}
		}
	}
	return &refusal{code: codeNotExecutable, text: message}
}
