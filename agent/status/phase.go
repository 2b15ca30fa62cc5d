package status

import (
	corev1 "k8s.io/api/core/v1"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
)

// Phase condenses container states into the pod's phase:
//
//	Pending    an init container has to finish, or a container never ran yet
//	Running    all were started, one runs or will be restarted
//	Succeeded  all ended with 0 and stay so
//	Failed     all ended, one of them badly, and stay so
//
// stopped means that nothing runs and nothing will be restarted: without it no
// phase is final, because there is no way back from those.
func Phase(pod *corev1.Pod, init, main []corev1.ContainerStatus, stopped bool) corev1.PodPhase {
	pending, failed := initPhase(pod, init, anyStarted(main))
	switch {
	case failed && stopped:
		return corev1.PodFailed
	case failed:
		pending = true
	}
	n := count(pod, main)
	sidecarsRun := false
	for i := range pod.Spec.InitContainers {
		if podutil.IsRestartableInitContainer(&pod.Spec.InitContainers[i]) {
			if st := find(init, pod.Spec.InitContainers[i].Name); st != nil && st.State.Running != nil {
				sidecarsRun = true
			}
		}
	}
	running := n.running > 0 || sidecarsRun
	switch {
	case pending || n.waiting > 0:
		return corev1.PodPending
	case running:
		return corev1.PodRunning
	case n.stopped == 0:
		return corev1.PodPending
	case !stopped:
		return corev1.PodRunning
	case n.stopped == n.succeeded:
		return corev1.PodSucceeded
	}
	return corev1.PodFailed
}

// initPhase says whether initialisation still has to happen, or has failed for good.
func initPhase(pod *corev1.Pod, init []corev1.ContainerStatus, initialised bool) (pending, failed bool) {
	for i := range pod.Spec.InitContainers {
		spec := &pod.Spec.InitContainers[i]
		st := find(init, spec.Name)
		if podutil.IsRestartableInitContainer(spec) {
			if !initialised && (st == nil || st.Started == nil || !*st.Started) {
				pending = true
			}
			continue
		}
		end := ended(st)
		switch {
		case end == nil:
			pending = true
		case end.ExitCode != 0 && !podutil.ContainerShouldRestart(*spec, pod.Spec, end.ExitCode):
			failed = true
		case end.ExitCode != 0:
			pending = true
		}
	}
	return pending, failed
}

// ended is how a container that does not run ended last, or nil.
func ended(st *corev1.ContainerStatus) *corev1.ContainerStateTerminated {
	switch {
	case st == nil || st.State.Running != nil:
		return nil
	case st.State.Terminated != nil:
		return st.State.Terminated
	}
	return st.LastTerminationState.Terminated
}

type counts struct{ running, waiting, stopped, succeeded int }

func count(pod *corev1.Pod, main []corev1.ContainerStatus) counts {
	var n counts
	for i := range pod.Spec.Containers {
		spec := &pod.Spec.Containers[i]
		st := find(main, spec.Name)
		if st != nil && st.State.Running != nil {
			n.running++
			continue
		}
		end := ended(st)
		if end == nil {
			n.waiting++
			continue
		}
		n.stopped++
		if st.State.Terminated != nil && end.ExitCode == 0 {
			n.succeeded++
		}
	}
	return n
}
