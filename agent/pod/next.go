package pod

import (
	"time"

	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
)

// Next decides what to do now, from what is wanted and what was observed. It
// is a pure function: it changes nothing and looks at no clock. The worker
// acts and asks again until the answer is Wait (or Done).
func Next(v View, s *State, now time.Time) Action {
	switch f := fateOf(v, s, now); f.kind {
	case remove, finish:
		return end(v, s, f.kind, now)
	case fail:
		return Action{Do: Fail, Reason: f.reason, Message: f.message}
	}
	w := waiting{now: now}
	if a, ok := setUp(v, s, now, &w); ok {
		return a
	}
	if a, ok := tend(v, s, now, &w); ok {
		return a
	}
	if ready(s) {
		if a, ok := start(v, s, now, &w); ok {
			return a
		}
	}
	if a, ok := expire(v, s, now); ok {
		return a
	}
	if !s.Expire.Busy {
		w.until(s.Expire.RetryAt)
	}
	if at := deadline(v, s); !at.IsZero() {
		w.until(at)
	}
	return Action{Do: Wait, Until: w.at}
}

// waiting collects the nearest moment at which something becomes due. A moment
// that has come already is none of them: what is due but was not acted on waits
// for an operation, whose end wakes the worker. Waking at once would only ask
// the same question again, for as long as that operation takes.
type waiting struct{ now, at time.Time }

func (w *waiting) until(at time.Time) {
	if at.After(w.now) && (w.at.IsZero() || at.Before(w.at)) {
		w.at = at
	}
}

// setUp starts every hook and every pull that is due, all side by side: none
// of them needs another's result.
func setUp(v View, s *State, now time.Time, w *waiting) (Action, bool) {
	for _, name := range setupHooks {
		step := s.Hooks[name]
		if step.due(now) {
			return Action{Do: Setup, Hook: name}, true
		}
		if !step.Done && !step.Busy {
			w.until(step.RetryAt)
		}
	}
	if volumes := s.Hooks[hookVolumes]; volumes.Done && !s.VolumesDue.IsZero() {
		if !volumes.Busy && !now.Before(s.VolumesDue) {
			return Action{Do: Setup, Hook: hookVolumes}, true
		}
		w.until(s.VolumesDue)
	}
	for _, c := range s.Containers {
		if c.Op != Idle || !needsImage(v, c, s) {
			continue
		}
		if c.Image.due(now) {
			return Action{Do: Pull, Container: c}, true
		}
		if !c.Image.Done {
			w.until(c.Image.RetryAt)
		}
	}
	return Action{}, false
}

// ready: containers may be started.
func ready(s *State) bool {
	for _, name := range setupHooks {
		if !s.Hooks[name].Done {
			return false
		}
	}
	return true
}

// needsImage: it will be started, now or later. A running container needs none.
func needsImage(v View, c *Container, s *State) bool {
	if c.running() {
		return false
	}
	if single := v.single(c); single != nil {
		return single.wants(c)
	}
	return c.Role != Init || !c.succeeded() && !initialised(s)
}

// initialised: a main container was started once, so init containers are history.
func initialised(s *State) bool {
	for _, c := range s.Containers {
		if c.Role == Main && c.Current != nil {
			return true
		}
	}
	return false
}

// tend looks after running containers: those that have to be replaced, and
// those that did not end in time.
func tend(v View, s *State, now time.Time, w *waiting) (Action, bool) {
	for _, c := range s.Containers {
		if !c.running() || c.Op != Idle {
			continue
		}
		if a, ok := enforce(c, now, w); ok {
			return a, true
		}
		if single := v.single(c); single != nil {
			if a, ok := single.interrupt(v.Pod, c); ok {
				return a, true
			}
		}
		if c.Stop != nil {
			continue
		}
		switch {
		case c.Unhealthy != "":
			return Action{Do: StopIt, Container: c, Reason: "Unhealthy", Message: c.Unhealthy}, true
		case c.Current.Spec.ImageRef != c.Spec.Image:
			return Action{Do: StopIt, Container: c, Reason: "Changed", Message: "Container " + c.Spec.Name + " definition changed, will be restarted"}, true
		}
	}
	return Action{}, false
}

// enforce kills a container that was asked to stop and did not in time.
func enforce(c *Container, now time.Time, w *waiting) (Action, bool) {
	if c.Stop == nil || c.Stop.Killed || !c.running() {
		return Action{}, false
	}
	if now.Before(c.Stop.Deadline) {
		w.until(c.Stop.Deadline)
		return Action{}, false
	}
	return Action{Do: Kill, Container: c}, true
}

// start starts what should run: init containers one after another, then the
// main containers in their order.
func start(v View, s *State, now time.Time, w *waiting) (Action, bool) {
	past := initialised(s)
	for _, c := range s.Containers {
		if c.Role == Init && (past || c.succeeded()) {
			continue
		}
		if c.Op == Starting {
			return Action{}, false
		}
		if !c.running() && wants(v, c) {
			at := startAt(v, c)
			if c.Image.Done && !c.Image.Busy && c.Op == Idle && !now.Before(at) {
				return Action{Do: Run, Container: c}, true
			}
			w.until(at)
		}
		// The next one waits for an init container to end, and for a sidecar
		// to have started.
		if c.Role == Init || c.Role == Sidecar && !past && !(c.running() && c.Started) {
			return Action{}, false
		}
	}
	return Action{}, false
}

// wants: by the restart policy it should (still) run.
func wants(v View, c *Container) bool {
	if single := v.single(c); single != nil {
		return single.wants(c)
	}
	if c.Current == nil || c.Recreate {
		return true
	}
	return c.exited() && podutil.ContainerShouldRestart(*c.Spec, v.Pod.Spec, int32(c.Current.exitCode()))
}

// startAt is when a container may be started (again).
func startAt(v View, c *Container) time.Time {
	at := c.Start.RetryAt
	if single := v.single(c); single != nil && single.fresh(c) {
		return at // a person asks for it, and does not want to wait
	}
	if c.exited() && !c.Recreate {
		if after := c.Backoff.after(c.Current.StartedAt, c.Current.FinishedAt); after.After(at) {
			at = after
		}
	}
	return at
}
