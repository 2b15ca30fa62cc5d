package pod

import (
	"cmp"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"lighter.dev/lighter/agent/runtime"
)

// adopt takes over the containers that an earlier agent left, running or not.
// What the API last heard about readiness holds until a probe knows better.
func (w *worker) adopt(found []runtime.Status) {
	slices.SortFunc(found, func(a, b runtime.Status) int { return cmp.Compare(a.Spec.Attempt, b.Spec.Attempt) })
	// An orphan's spec is lost, and with it the QoS class that the path tells.
	if path := found[0].Spec.CgroupParent; path != "" {
		w.cgroup = path
	}
	for _, c := range w.st.Containers {
		for _, st := range found {
			if st.Spec.Name != c.Spec.Name {
				continue
			}
			if neverRan(st) {
				c.Stale = &st.Spec
				continue
			}
			c.Last, c.Current = c.Current, &Attempt{Status: st}
		}
		if c.Current == nil {
			continue
		}
		c.Backoff = backoffAt(c.Current.Spec.Attempt)
		if single := w.view.single(c); single != nil {
			c.Backoff = backoffAt(c.Current.Spec.Retries)
			single.revive(c)
		}
		w.inherit(c)
	}
}

// neverRan: an earlier agent died while it made the container, at the latest
// before it could note a start. That was no attempt, and its next one no restart.
func neverRan(st runtime.Status) bool {
	return st.State == runtime.StateCreated || st.State == runtime.StateUnknown && st.StartedAt.IsZero()
}

// inherit takes Started and Ready from the API's status
// if that is about the same attempt.
func (w *worker) inherit(c *Container) {
	known := slices.Concat(w.view.Pod.Status.InitContainerStatuses, w.view.Pod.Status.ContainerStatuses)
	i := slices.IndexFunc(known, func(st corev1.ContainerStatus) bool { return st.Name == c.Spec.Name })
	if i < 0 || known[i].ContainerID != containerScheme+c.Current.Spec.ID {
		return
	}
	if c.running() {
		c.Started = known[i].Started != nil && *known[i].Started
		c.Ready = known[i].Ready
	}
}
