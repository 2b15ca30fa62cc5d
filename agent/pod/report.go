package pod

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/reference"

	"lighter.dev/lighter/agent/image"
	"lighter.dev/lighter/agent/runtime"
	"lighter.dev/lighter/api/v1alpha1"
)

// containerScheme is what container IDs begin with in the API.
const containerScheme = "lighter://"

// report tells the containers as the API shows them.
func (w *worker) report() (init, main []corev1.ContainerStatus) {
	past := initialised(&w.st)
	blocked := false
	for _, c := range w.st.Containers {
		st := w.containerStatus(c, blocked)
		if c.Role == Main {
			main = append(main, st)
			continue
		}
		init = append(init, st)
		if !past && !(c.succeeded() || c.Role == Sidecar && c.running() && c.Started) {
			blocked = true
		}
	}
	return init, main
}

// containerStatus tells one container. blocked: an init container has to end first.
func (w *worker) containerStatus(c *Container, blocked bool) corev1.ContainerStatus {
	started := c.running() && c.Started
	st := corev1.ContainerStatus{
		Name: c.Spec.Name, Image: c.Spec.Image, Ready: c.Ready, Started: &started,
	}
	if c.Current == nil {
		st.State.Waiting = w.waitingState(c, blocked)
		if c.Held != nil {
			st.ContainerID = containerScheme + c.Held.ID
		}
		return st
	}
	cur := c.Current
	st.RestartCount = int32(cur.Spec.Attempt)
	st.ContainerID = containerScheme + cur.Spec.ID
	st.ImageID = imageID(cur.Spec.ImageRef, cur.Spec.ImageID)
	if c.Last != nil {
		st.LastTerminationState.Terminated = terminated(c.Last)
	}
	switch {
	case c.running() && cur.State == runtime.StateRunning:
		st.State.Running = &corev1.ContainerStateRunning{StartedAt: metav1.Time{Time: cur.StartedAt}}
	case c.running():
		st.State.Waiting = &corev1.ContainerStateWaiting{Reason: "ContainerCreating"}
	case c.Held != nil || w.willRestart(c):
		st.LastTerminationState.Terminated = terminated(cur)
		st.State.Waiting = w.waitingState(c, blocked)
	default:
		st.State.Terminated = terminated(cur)
		if single := w.view.single(c); single != nil && single.stopped(c) && !cur.OOMKilled {
			st.State.Terminated.Reason = "Stopped"
		}
	}
	return st
}

// willRestart: it ended, and another attempt will follow.
func (w *worker) willRestart(c *Container) bool {
	if fateOf(w.view, &w.st, time.Now()).kind != live || w.stopping() {
		return false
	}
	return wants(w.view, c) && (c.Role != Init || !initialised(&w.st))
}

// stopping: the pod is on its way out.
func (w *worker) stopping() bool { return w.view.Deleted() || w.st.Failed != nil }

// waitingState says what a container waits for.
func (w *worker) waitingState(c *Container, blocked bool) *corev1.ContainerStateWaiting {
	wait := &corev1.ContainerStateWaiting{Reason: "ContainerCreating"}
	if c.Role == Main && blocked || blocked {
		wait.Reason = "PodInitializing"
	}
	switch {
	case c.Image.Err != nil && !c.Image.Done:
		wait.Reason, wait.Message = pullReason(c.Image.Err), pullText(c.Image.Err)
		if wait.Reason == image.ErrPull.Error() && c.Image.Failures > 1 {
			wait.Reason = "ImagePullBackOff"
			wait.Message = fmt.Sprintf("Back-off pulling image %q: %s", c.Spec.Image, pullText(c.Image.Err))
		}
	case c.Start.Err != nil:
		wait.Reason, wait.Message = reasonRun, c.Start.Err.Error()
		var refused *startError
		if errors.As(c.Start.Err, &refused) {
			wait.Reason = refused.reason
		}
	case c.Current == nil && w.view.single(c) != nil && w.view.Single.stopped(c):
		wait.Reason, wait.Message = "Created", "the container is not started"
	case c.Held != nil:
		wait.Reason, wait.Message = v1alpha1.ReasonAwaitsClient, "the container starts when a client has attached to it"
	case c.exited() && !c.Recreate && startAt(w.view, c).After(time.Now()):
		wait.Reason = "CrashLoopBackOff"
		wait.Message = fmt.Sprintf("back-off %v restarting failed container=%s pod=%s", c.Backoff.Delay, c.Spec.Name, podTitle(w.view.Pod))
	}
	return wait
}

// terminated tells how an attempt ended.
func terminated(a *Attempt) *corev1.ContainerStateTerminated {
	t := &corev1.ContainerStateTerminated{
		ExitCode: int32(a.exitCode()), Reason: a.Reason, Message: a.Message,
		StartedAt: metav1.Time{Time: a.StartedAt}, FinishedAt: metav1.Time{Time: a.FinishedAt},
		ContainerID: containerScheme + a.Spec.ID,
	}
	switch {
	case a.OOMKilled:
		t.Reason = "OOMKilled"
	case t.Reason != "":
	case t.ExitCode == 0:
		t.Reason = "Completed"
	default:
		t.Reason = "Error"
	}
	return t
}

// imageID names an image as Kubernetes' clients expect it: repository@digest.
func imageID(ref, dgst string) string {
	if dgst == "" {
		return ""
	}
	name, err := v1alpha1.NormalizeTag(ref)
	if err != nil {
		name, _, _ = strings.Cut(ref, "@")
	}
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		name = name[:i]
	}
	return name + "@" + dgst
}

// podIPs are known once the network is set up; after a restart of the agent,
// the API's word holds until then.
func (w *worker) podIPs() []netip.Addr {
	if w.box.attached {
		return w.box.ips
	}
	var out []netip.Addr
	for _, ip := range w.view.Pod.Status.PodIPs {
		if addr, err := netip.ParseAddr(ip.IP); err == nil {
			out = append(out, addr)
		}
	}
	return out
}

// event records an Event of the pod.
func (w *worker) event(kind, reason, message string) {
	w.cfg.Recorder.Event(w.pod(), kind, reason, message)
}

// containerEvent records an Event of one of its containers.
func (w *worker) containerEvent(pod *corev1.Pod, c *corev1.Container, kind, reason, message string) {
	ref, err := reference.GetReference(scheme.Scheme, pod)
	if err != nil {
		w.log.Warn("Cannot refer to pod in event", "err", err)
		return
	}
	list := "containers"
	for i := range pod.Spec.InitContainers {
		if pod.Spec.InitContainers[i].Name == c.Name {
			list = "initContainers"
		}
	}
	ref.FieldPath = fmt.Sprintf("spec.%s{%s}", list, c.Name)
	w.cfg.Recorder.Event(ref, kind, reason, message)
}
