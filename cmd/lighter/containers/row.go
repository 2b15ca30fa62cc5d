package containers

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/docker/go-units"
	corev1 "k8s.io/api/core/v1"

	"lighter.dev/lighter/api/v1alpha1"
)

// Row is one container in the list, with the names that Docker's JSON has.
type Row struct {
	Names     string
	Namespace string
	Image     string
	Command   string
	CreatedAt time.Time
	State     string
	Status    string
	Ports     string
	Host      string
	Labels    map[string]string
}

// rowsOf lists a pod's containers; those of init are its own business.
func rowsOf(pod *corev1.Pod, now time.Time) []Row {
	var out []Row
	for i := range pod.Spec.Containers {
		spec := &pod.Spec.Containers[i]
		row := Row{
			Names: nameOf(pod), Namespace: pod.Namespace, Image: spec.Image, CreatedAt: pod.CreationTimestamp.Time,
			Command: strings.Join(slices.Concat(spec.Command, spec.Args), " "),
			Ports:   portsOf(spec.Ports), Host: pod.Spec.NodeName, Labels: pod.Labels,
		}
		if len(pod.Spec.Containers) > 1 {
			row.Names += "/" + spec.Name
		}
		var status corev1.ContainerStatus
		for _, s := range pod.Status.ContainerStatuses {
			if s.Name == spec.Name {
				status = s
			}
		}
		row.State, row.Status = stateOf(pod, spec, &status, now)
		out = append(out, row)
	}
	return out
}

// stateOf is Docker's word for a state, and its sentence.
func stateOf(pod *corev1.Pod, spec *corev1.Container, status *corev1.ContainerStatus, now time.Time) (state, text string) {
	ago := func(at time.Time) string { return units.HumanDuration(now.Sub(at)) }
	exited := func(end *corev1.ContainerStateTerminated) string {
		return fmt.Sprintf("(%d) %s ago", end.ExitCode, ago(end.FinishedAt.Time))
	}
	last, waiting := status.LastTerminationState.Terminated, status.State.Waiting
	switch {
	case pod.DeletionTimestamp != nil:
		return "removing", "Removal In Progress"
	case status.State.Running != nil:
		return "running", "Up " + ago(status.State.Running.StartedAt.Time) + health(spec, status)
	case status.State.Terminated != nil:
		return "exited", "Exited " + exited(status.State.Terminated)
	case waiting != nil && last != nil && waiting.Reason != v1alpha1.ReasonAwaitsClient:
		return "restarting", "Restarting " + exited(last)
	case pod.Status.Phase == corev1.PodFailed:
		return "dead", "Refused (" + cmp.Or(pod.Status.Reason, "Failed") + ")"
	case waiting != nil && waiting.Reason != "Created" && waiting.Reason != v1alpha1.ReasonAwaitsClient:
		return "created", "Created (" + waiting.Reason + ")"
	case pod.Spec.NodeName == "":
		return "created", "Created (waits for a host)"
	}
	return "created", "Created"
}

// health is what a container with probes is said to have.
func health(spec *corev1.Container, status *corev1.ContainerStatus) string {
	switch {
	case spec.ReadinessProbe == nil && spec.LivenessProbe == nil && spec.StartupProbe == nil:
		return ""
	case status.Started == nil || !*status.Started:
		return " (health: starting)"
	case !status.Ready:
		return " (unhealthy)"
	}
	return " (healthy)"
}

// portsOf is "0.0.0.0:8080->80/tcp" for what is published, "80/tcp" for the rest.
func portsOf(all []corev1.ContainerPort) string {
	var out []string
	for _, p := range all {
		text := fmt.Sprintf("%d/%s", p.ContainerPort, strings.ToLower(string(cmp.Or(p.Protocol, corev1.ProtocolTCP))))
		if p.HostPort != 0 {
			text = fmt.Sprintf("%s:%d->%s", cmp.Or(p.HostIP, "0.0.0.0"), p.HostPort, text)
		}
		out = append(out, text)
	}
	return strings.Join(out, ", ")
}
