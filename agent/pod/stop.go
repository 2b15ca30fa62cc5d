package pod

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/sys/signal"
	corev1 "k8s.io/api/core/v1"

	"lighter.dev/lighter/agent/runtime"
)

// stop asks a container to end: preStop hook, then its stop signal. SIGKILL
// follows at the deadline, when Next says so.
func (w *worker) stop(ctx context.Context, a Action, now time.Time) {
	c := a.Container
	grace := a.Grace
	if a.Reason != ending && a.Reason != requested {
		grace = restartGrace(w.view.Pod, c)
	}
	if c.Stop != nil && a.Reason != requested {
		c.Stop.Deadline = now.Add(grace)
		return
	}
	c.Stop = &Stop{Deadline: now.Add(grace)}
	if a.Reason == requested {
		c.Stop.Request = w.view.Single.Run.Number
	}
	c.Recreate = a.Reason == "Changed"
	// A probe must not call a container unhealthy that is told to end; its
	// readiness goes with the endpoints, which know of the deletion.
	w.cfg.Probes.Stop(c.Current.Spec.ID)
	w.containerEvent(w.view.Pod, c.Spec, corev1.EventTypeNormal, "Killing", a.Message)
	w.log.Info("Stopping container", "container", c.Spec.Name, "grace", grace, "why", a.Message)
	id, spec, pod, sig := c.Current.Spec.ID, c.Spec, w.pod(), stopSignal(c, a.Signal)
	ip := w.podIPs()
	w.async(func() func() {
		if sig != syscall.SIGKILL {
			if err := w.preStop(ctx, pod, spec, id, ip, grace); err != nil {
				w.containerEvent(pod, spec, corev1.EventTypeWarning, "FailedPreStopHook", err.Error())
			}
		}
		err := w.cfg.Engine.Signal(ctx, id, sig)
		return func() { w.signalled(c, id, err) }
	})
}

// restartGrace is how long a container may take that is replaced, not ended.
func restartGrace(pod *corev1.Pod, c *Container) time.Duration {
	for _, p := range []*corev1.Probe{c.Spec.LivenessProbe, c.Spec.StartupProbe} {
		if c.Unhealthy != "" && p != nil && p.TerminationGracePeriodSeconds != nil {
			return max(time.Duration(*p.TerminationGracePeriodSeconds)*time.Second, minGrace)
		}
	}
	return gracePeriod(View{Pod: pod})
}

// kill is the last resort.
func (w *worker) kill(ctx context.Context, c *Container) {
	c.Stop.Killed = true
	id := c.Current.Spec.ID
	w.log.Info("Container did not stop in time, killing it", "container", c.Spec.Name)
	w.async(func() func() {
		err := w.cfg.Engine.Signal(ctx, id, syscall.SIGKILL)
		return func() { w.signalled(c, id, err) }
	})
}

// signalled looks again when a signal did not arrive: most often the container
// ended on its own.
func (w *worker) signalled(c *Container, id string, err error) {
	if err == nil || c.Current == nil || c.Current.Spec.ID != id {
		return
	}
	if !errdefs.IsNotFound(err) && !errdefs.IsFailedPrecondition(err) {
		w.log.Warn("Cannot signal container", "container", c.Spec.Name, "err", err)
	}
	w.refresh(context.Background(), id)
}

// stopSignal is what the container is stopped with: what was asked for, else
// what it wants itself.
func stopSignal(c *Container, asked string) syscall.Signal {
	name := c.Current.Spec.Image.StopSignal
	if l := c.Spec.Lifecycle; l != nil && l.StopSignal != nil {
		name = string(*l.StopSignal)
	}
	name = cmp.Or(asked, name)
	if name != "" {
		if sig, err := signal.ParseSignal(strings.ToUpper(name)); err == nil {
			return sig
		}
	}
	return syscall.SIGTERM
}

// refresh reads a container's status from the engine. It runs on the worker's
// goroutine; the engine answers from memory and small files.
func (w *worker) refresh(ctx context.Context, id string) {
	for _, c := range w.st.Containers {
		if c.Current == nil || c.Current.Spec.ID != id || !c.running() {
			continue
		}
		st, err := w.cfg.Engine.Status(ctx, id)
		switch {
		case errdefs.IsNotFound(err):
			// Somebody removed it behind our back.
			c.Current.State, c.Current.FinishedAt = runtime.StateUnknown, time.Now()
			w.exited(c)
		case err != nil:
			w.log.Warn("Cannot read container status", "id", id, "err", err)
		default:
			c.Current.Status = st
			if c.exited() {
				w.exited(c)
			}
		}
	}
}

// exited does what follows the end of an attempt.
func (w *worker) exited(c *Container) {
	w.cfg.Probes.Stop(c.Current.Spec.ID)
	c.Stop, c.Unhealthy, c.Started, c.Ready = nil, "", false, false
	if c.Current.FinishedAt.IsZero() {
		c.Current.FinishedAt = time.Now()
	}
	code := c.Current.exitCode()
	w.log.Info("Container ended", "container", c.Spec.Name, "exitCode", code, "oom", c.Current.OOMKilled)
	// The image is checked again before a restart: it may have been removed.
	c.Image = Step{Busy: c.Image.Busy}
	if w.view.Deleted() || c.Recreate || !wants(w.view, c) {
		return
	}
	if at := startAt(w.view, c); at.After(time.Now()) {
		w.containerEvent(w.view.Pod, c.Spec, corev1.EventTypeWarning, "BackOff",
			fmt.Sprintf("Back-off restarting failed container %s in pod %s", c.Spec.Name, podTitle(w.view.Pod)))
	}
}

// podTitle is name_namespace(uid), as kubelet writes it in Events.
func podTitle(pod *corev1.Pod) string {
	return fmt.Sprintf("%s_%s(%s)", pod.Name, pod.Namespace, pod.UID)
}
