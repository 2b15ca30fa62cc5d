package pod

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
)

type fateKind int

const (
	live   fateKind = iota
	finish          // it ended: stop what runs, release resources, stay visible
	remove          // it has to leave this node
	fail            // it has to be declared failed first
)

type fate struct {
	kind            fateKind
	reason, message string
}

// fateOf decides whether the pod lives.
func fateOf(v View, s *State, now time.Time) fate {
	switch {
	case v.Deleted():
		return fate{kind: remove}
	case s.Failed != nil, s.Ended, isTerminal(v.Pod.Status.Phase), completed(v.Pod, s):
		return fate{kind: finish}
	}
	if at := deadline(v, s); !at.IsZero() && !now.Before(at) {
		return fate{fail, "DeadlineExceeded", "Pod was active on the node longer than the specified deadline"}
	}
	return fate{}
}

func isTerminal(p corev1.PodPhase) bool { return p == corev1.PodSucceeded || p == corev1.PodFailed }

// deadline is when spec.activeDeadlineSeconds is over; zero is never.
func deadline(v View, s *State) time.Time {
	seconds := v.Pod.Spec.ActiveDeadlineSeconds
	if seconds == nil || s.StartTime.IsZero() {
		return time.Time{}
	}
	return s.StartTime.Add(time.Duration(*seconds) * time.Second)
}

// completed: all main containers ended, or an init container failed, and
// nothing will be restarted. Sidecars do not count.
func completed(pod *corev1.Pod, s *State) bool {
	ended := 0
	mains := 0
	for _, c := range s.Containers {
		over := c.exited() && c.Op == Idle && !c.Recreate &&
			!podutil.ContainerShouldRestart(*c.Spec, pod.Spec, int32(c.Current.exitCode()))
		switch c.Role {
		case Init:
			if over && !c.succeeded() && !initialised(s) {
				return true
			}
		case Main:
			mains++
			if over {
				ended++
			}
		}
	}
	return mains > 0 && ended == mains
}

// end takes the pod down: main containers at once, then sidecars in reverse
// order, then what was set up, then (if it is deleted) the object itself.
func end(v View, s *State, kind fateKind, now time.Time) Action {
	w := waiting{now: now}
	if a, ok := stopAll(v, s, now, &w); ok {
		return a
	}
	if anythingMoves(s) {
		return Action{Do: Wait, Until: w.at}
	}
	if kind == finish {
		return next(&s.Release, Release, now)
	}
	if !s.Teardown.Done {
		return next(&s.Teardown, Teardown, now)
	}
	if !s.Final.Done {
		return next(&s.Final, Finalize, now)
	}
	return Action{Do: Done}
}

// next starts a step if it is due, else waits for it.
func next(step *Step, do Verb, now time.Time) Action {
	switch {
	case step.due(now):
		return Action{Do: do}
	case step.Done || step.Busy:
		return Action{Do: Wait}
	}
	return Action{Do: Wait, Until: step.RetryAt}
}

// stopAll asks containers to stop, in order, and kills those that are late.
func stopAll(v View, s *State, now time.Time, w *waiting) (Action, bool) {
	grace := gracePeriod(v)
	mainsRun := false
	for _, c := range s.Containers {
		if c.Role == Sidecar || !c.running() {
			mainsRun = mainsRun || c.Role != Sidecar && c.Op == Starting
			continue
		}
		mainsRun = true
		if a, ok := stopOne(c, grace, now, w); ok {
			return a, true
		}
	}
	if mainsRun {
		return Action{}, false
	}
	for i := len(s.Containers) - 1; i >= 0; i-- {
		c := s.Containers[i]
		if c.Role != Sidecar || !c.running() {
			continue
		}
		return stopOne(c, grace, now, w)
	}
	return Action{}, false
}

// ending is the reason of a stop that ends the pod.
const ending = "Ending"

func stopOne(c *Container, grace time.Duration, now time.Time, w *waiting) (Action, bool) {
	if c.Op != Idle {
		return Action{}, false
	}
	// A second delete may shorten the grace period of a stop under way.
	if c.Stop == nil || c.Stop.Deadline.After(now.Add(grace)) {
		return Action{Do: StopIt, Container: c, Grace: grace, Reason: ending, Message: "Stopping container " + c.Spec.Name}, true
	}
	return enforce(c, now, w)
}

// gracePeriod is what the delete asked for, else what the pod's spec says.
func gracePeriod(v View) time.Duration {
	seconds := int64(corev1.DefaultTerminationGracePeriodSeconds)
	if v.Pod.Spec.TerminationGracePeriodSeconds != nil {
		seconds = *v.Pod.Spec.TerminationGracePeriodSeconds
	}
	if v.Pod.DeletionGracePeriodSeconds != nil {
		seconds = *v.Pod.DeletionGracePeriodSeconds
	}
	// At least a moment: SIGTERM, then SIGKILL.
	return max(time.Duration(seconds)*time.Second, minGrace)
}

const minGrace = time.Second

// anythingMoves: a container runs or something is under way.
func anythingMoves(s *State) bool {
	for _, step := range s.Hooks {
		if step.Busy {
			return true
		}
	}
	for _, c := range s.Containers {
		if c.running() || c.Op != Idle {
			return true
		}
	}
	return false
}
