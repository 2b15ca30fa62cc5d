package pod

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"lighter.dev/lighter/agent/objects"
	"lighter.dev/lighter/api/v1alpha1"
)

// The hooks of a pod's set-up.
const (
	hookCgroup     = "cgroup"
	hookNetwork    = "network"
	hookVolumes    = "volumes"
	hookImages     = "images"
	hookContainers = "containers"
)

// setupHooks run side by side as soon as the pod arrives, while images are
// pulled; containers start when all are done.
var setupHooks = []string{hookCgroup, hookNetwork, hookVolumes}

// hook is one layer of a pod. Both functions are idempotent; undo is safe when
// setup never ran or came half way.
type hook struct {
	name  string
	setup func(*worker, context.Context) error
	undo  func(*worker, context.Context) error
}

// hooks, in order, undone in reverse. The last two are set up container by
// container, as Next decides.
func (w *worker) hooks() []hook {
	return []hook{
		{hookCgroup, (*worker).makeCgroup, (*worker).removeCgroup},
		{hookNetwork, (*worker).attach, (*worker).detach},
		{hookVolumes, (*worker).mountVolumes, (*worker).unmountVolumes},
		{hookImages, nil, (*worker).removeSnapshots},
		{hookContainers, nil, (*worker).deleteContainers},
	}
}

// releaseHooks are undone when a pod ended but is not deleted: its dead
// containers stay for their logs and exit codes.
var releaseHooks = []hook{
	{hookCgroup, nil, (*worker).removeCgroup},
	{hookNetwork, nil, (*worker).detach},
	{hookVolumes, nil, (*worker).unmountVolumes},
}

// setup runs one hook beside the worker.
func (w *worker) setup(name string) {
	step := w.st.Hooks[name]
	again := step.Done
	step.Busy = true
	if name == hookVolumes {
		w.mounted = w.objects
	}
	h := w.hooks()[slices.IndexFunc(w.hooks(), func(h hook) bool { return h.name == name })]
	w.async(func() func() {
		err := h.setup(w, w.setUpCtx)
		return func() {
			step.Busy = false
			switch {
			case err == nil:
				failures := step.Failures
				step.succeed()
				if failures > 0 {
					w.log.Info("Set-up succeeded", "hook", name, "after", failures)
				}
			case w.setUpCtx.Err() != nil:
				step.Err = err
			default:
				step.fail(err, time.Now(), firstRetry, maxRetry)
				// Volumes that were made stay usable though a refresh failed.
				step.Done = again
				if again {
					w.st.VolumesDue = step.RetryAt
				}
				w.setupFailed(name, err)
			}
		}
	})
}

// setupFailed tells the user, in the words that Kubernetes uses.
func (w *worker) setupFailed(name string, err error) {
	w.log.Warn("Set-up failed, will retry", "hook", name, "err", err)
	switch name {
	case hookVolumes:
		for _, e := range flatten(err) {
			w.event(corev1.EventTypeWarning, "FailedMount", e.Error())
		}
	case hookNetwork:
		w.event(corev1.EventTypeWarning, "FailedCreatePodSandBox", "Failed to create pod sandbox: "+err.Error())
	default:
		w.event(corev1.EventTypeWarning, "FailedCreatePodContainer", fmt.Sprintf("unable to ensure pod %s exists: %v", name, err))
	}
}

// flatten splits joined errors.
func flatten(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	return []error{err}
}

// undo runs hooks in reverse, all of them whatever fails, and retries the lot.
func (w *worker) undo(ctx context.Context, step *Step, hooks []hook) {
	step.Busy = true
	w.async(func() func() {
		var errs []error
		for _, h := range slices.Backward(hooks) {
			if err := h.undo(w, ctx); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", h.name, err))
			}
		}
		err := errors.Join(errs...)
		return func() {
			if err == nil {
				step.succeed()
				return
			}
			step.fail(err, time.Now(), firstRetry, maxRetry)
			w.log.Warn("Clean-up failed, will retry", "err", err)
			w.event(corev1.EventTypeWarning, "FailedKillPod", "error killing pod: "+err.Error())
		}
	})
}

func (w *worker) makeCgroup(ctx context.Context) error {
	return w.cfg.Engine.PodCgroup(ctx, w.cgroup, podLimits(w.pod()))
}

func (w *worker) removeCgroup(ctx context.Context) error {
	return w.cfg.Engine.RemovePodCgroup(ctx, w.cgroup)
}

// attach pins the pod's namespaces, connects it and writes the files that
// depend on its addresses.
func (w *worker) attach(ctx context.Context) error {
	pod := w.pod()
	want := Want{Net: !pod.Spec.HostNetwork, IPC: !pod.Spec.HostIPC, UTS: !pod.Spec.HostNetwork}
	spaces, err := w.cfg.Engine.PinNamespaces(ctx, string(w.uid), hostname(pod, w.cfg.ClusterDomain), want)
	if err != nil {
		return fmt.Errorf("namespaces: %w", err)
	}
	ips := w.cfg.HostIPs()
	if !pod.Spec.HostNetwork {
		if ips, err = w.cfg.Network.Attach(ctx, w.sandboxOf(pod, spaces.Net)); err != nil {
			return err
		}
	}
	if err := w.writeFiles(pod, ips); err != nil {
		return err
	}
	w.post(func() {
		w.box = sandbox{spaces, true, ips}
	})
	return nil
}

func (w *worker) detach(ctx context.Context) error {
	pod := w.pod()
	var errs []error
	if !pod.Spec.HostNetwork {
		errs = append(errs, w.cfg.Network.Detach(ctx, w.sandboxOf(pod, "")))
	}
	errs = append(errs, w.cfg.Engine.UnpinNamespaces(ctx, string(w.uid)))
	return errors.Join(errs...)
}

func (w *worker) sandboxOf(pod *corev1.Pod, netns string) Sandbox {
	s := Sandbox{PodUID: string(pod.UID), Namespace: pod.Namespace, Name: pod.Name, NetNS: netns, HostNetwork: pod.Spec.HostNetwork, Network: pod.Annotations[v1alpha1.NetworkAnnotation]}
	for _, c := range allContainers(pod) {
		s.Ports = append(s.Ports, c.Ports...)
	}
	return s
}

func (w *worker) mountVolumes(ctx context.Context) error {
	pod := w.pod()
	w.cfg.Objects.Use(w.uid, objects.RefsOf(pod), w.objectsChanged)
	due, err := w.cfg.Volumes.Setup(ctx, pod)
	w.post(func() {
		if w.objects != w.mounted {
			due = time.Now() // one changed while we wrote
		}
		w.st.VolumesDue = due
	})
	return err
}

func (w *worker) unmountVolumes(ctx context.Context) error {
	w.cfg.Objects.Release(w.uid)
	return w.cfg.Volumes.Teardown(ctx, w.uid)
}

// objectsChanged: a ConfigMap or Secret of the pod is new or different, so
// what waited for it is due.
func (w *worker) objectsChanged() {
	w.post(func() {
		now := time.Now()
		w.objects++
		w.st.VolumesDue = now
		if v := w.st.Hooks[hookVolumes]; !v.Done {
			v.RetryAt = now
		}
		for _, c := range w.st.Containers {
			if c.Start.Err != nil {
				c.Start.RetryAt = now
			}
		}
	})
}

// deleteContainers removes every container of the pod that the engine knows,
// also those that a crash kept us from noting.
func (w *worker) deleteContainers(ctx context.Context) error {
	all, err := w.cfg.Engine.List(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, st := range all {
		if podOf(st.Spec.ID) == w.uid {
			// File systems are removeSnapshots': attempts may share one.
			errs = append(errs, w.deleteContainer(ctx, st.Spec.ID, ""))
		}
	}
	errs = append(errs, os.RemoveAll(w.logDir()))
	return errors.Join(errs...)
}

// deleteContainer removes a container, then the file system named by snapshot,
// if it is not "".
func (w *worker) deleteContainer(ctx context.Context, id, snapshot string) error {
	w.cfg.Probes.Stop(id)
	if err := w.cfg.Engine.Delete(ctx, id); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("delete container %s: %w", id, err)
	}
	if snapshot == "" {
		return nil
	}
	return w.cfg.Images.Remove(ctx, snapshot)
}

func (w *worker) removeSnapshots(ctx context.Context) error {
	ids, err := w.cfg.Images.Containers(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, id := range ids {
		if podOf(id) == w.uid {
			errs = append(errs, w.cfg.Images.Remove(ctx, id))
		}
	}
	return errors.Join(errs...)
}

// logDir is the folder of all logs of the pod.
func (w *worker) logDir() string {
	pod := w.pod()
	return filepath.Join(w.cfg.LogDir, pod.Namespace+"_"+pod.Name+"_"+string(pod.UID))
}

// expire writes the last status, so that whoever waits for the exit code sees
// it, then has the API delete the pod.
func (w *worker) expire(ctx context.Context) {
	step, pod := &w.st.Expire, w.pod()
	step.Busy = true
	w.log.Info("Removing pod, as its container has ended")
	w.async(func() func() {
		err := w.cfg.Statuses.Flush(ctx, w.uid)
		if err == nil {
			err = w.cfg.Statuses.Expire(ctx, pod)
		}
		return func() {
			if err == nil {
				step.succeed()
				return
			}
			step.fail(err, time.Now(), firstRetry, maxRetry)
			w.log.Warn("Cannot remove pod, will retry", "err", err)
		}
	})
}

// finalize writes the last status, then deletes the pod from the API.
func (w *worker) finalize(ctx context.Context) {
	step, pod, gone := &w.st.Final, w.pod(), w.view.Gone
	step.Busy = true
	w.async(func() func() {
		var err error
		if !gone {
			if err = w.cfg.Statuses.Flush(ctx, w.uid); err == nil {
				err = w.cfg.Statuses.Delete(ctx, pod)
			}
		}
		return func() {
			if err == nil || apierrors.IsNotFound(err) {
				step.succeed()
				return
			}
			step.fail(err, time.Now(), firstRetry, maxRetry)
			w.log.Warn("Cannot delete pod from the API, will retry", "err", err)
		}
	})
}
