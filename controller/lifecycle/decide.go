package lifecycle

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// view is what is known about one node at one moment.
type view struct {
	node  *corev1.Node
	now   time.Time
	age   time.Duration // since the last sign of life
	guard bool          // too many nodes are silent: evict nobody
}

// plan is what to do about it.
type plan struct {
	lost    bool           // write Ready=Unknown, mark its pods not ready
	taints  []corev1.Taint // the taints that the node should have, all of them
	retaint bool           // they differ from what it has
	evict   bool           // apply NoExecute taints to its pods
	again   time.Duration  // when to look again without an event
}

// decide is the whole policy about nodes; pure.
func decide(v view, cfg NodesConfig) plan {
	p := plan{lost: v.age >= cfg.Grace}
	var ours []corev1.Taint
	switch {
	case p.lost:
		ours = append(ours, corev1.Taint{Key: corev1.TaintNodeUnreachable, Effect: corev1.TaintEffectNoSchedule})
		if !v.guard {
			ours = append(ours, corev1.Taint{Key: corev1.TaintNodeUnreachable, Effect: corev1.TaintEffectNoExecute})
		}
	case readyStatus(v.node) == corev1.ConditionFalse:
		ours = append(ours, corev1.Taint{Key: corev1.TaintNodeNotReady, Effect: corev1.TaintEffectNoSchedule},
			corev1.Taint{Key: corev1.TaintNodeNotReady, Effect: corev1.TaintEffectNoExecute})
	case readyStatus(v.node) != corev1.ConditionTrue:
		// The agent is there but has not said how it is (just registered, or just back).
		ours = append(ours, corev1.Taint{Key: corev1.TaintNodeNotReady, Effect: corev1.TaintEffectNoSchedule})
	}
	p.taints, p.retaint = mergeTaints(v.node.Spec.Taints, ours, v.now)
	p.evict = !v.guard && len(noExecute(p.taints)) > 0
	switch {
	case p.lost && v.guard:
		p.again = cfg.Grace / 8
	case p.lost:
		p.again = time.Minute // evictions set their own alarms
	default:
		p.again = cfg.Grace - v.age
	}
	return p
}

// mergeTaints replaces our taints among all by wanted, keeping the TimeAdded of those that stay.
func mergeTaints(all, wanted []corev1.Taint, now time.Time) (merged []corev1.Taint, changed bool) {
	isOurs := func(t corev1.Taint) bool {
		return t.Key == corev1.TaintNodeUnreachable || t.Key == corev1.TaintNodeNotReady
	}
	for _, taint := range all {
		if !isOurs(taint) {
			merged = append(merged, taint)
			continue
		}
		if slices.ContainsFunc(wanted, taintMatcher(taint)) {
			merged = append(merged, taint)
		} else {
			changed = true
		}
	}
	for _, taint := range wanted {
		if !slices.ContainsFunc(merged, taintMatcher(taint)) {
			added := metav1.NewTime(now)
			taint.TimeAdded = &added
			merged = append(merged, taint)
			changed = true
		}
	}
	return merged, changed
}

func taintMatcher(a corev1.Taint) func(corev1.Taint) bool {
	return func(b corev1.Taint) bool { return a.Key == b.Key && a.Effect == b.Effect }
}

func noExecute(taints []corev1.Taint) []corev1.Taint {
	var found []corev1.Taint
	for _, t := range taints {
		if t.Effect == corev1.TaintEffectNoExecute {
			found = append(found, t)
		}
	}
	return found
}

func readyStatus(node *corev1.Node) corev1.ConditionStatus {
	for _, c := range node.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status
		}
	}
	return ""
}

// evictionTime tells when a pod has to leave a node with these NoExecute taints; ok is
// false if it may stay. As Kubernetes does, every taint must be tolerated, and the
// shortest toleration counts; unlike there, defaults are the cluster's, not written
// into each pod.
func evictionTime(pod *corev1.Pod, taints []corev1.Taint, now time.Time, cfg NodesConfig) (at time.Time, ok bool) {
	for _, taint := range taints {
		since := now
		if taint.TimeAdded != nil {
			since = taint.TimeAdded.Time
		}
		patience, forever := tolerated(pod, taint, cfg)
		if forever {
			continue
		}
		if leave := since.Add(patience); !ok || leave.Before(at) {
			at, ok = leave, true
		}
	}
	return at, ok
}

// tolerated is how long pod tolerates one taint.
func tolerated(pod *corev1.Pod, taint corev1.Taint, cfg NodesConfig) (patience time.Duration, forever bool) {
	matched := false
	for i := range pod.Spec.Tolerations {
		t := &pod.Spec.Tolerations[i]
		if !tolerates(t, taint) {
			continue
		}
		if t.TolerationSeconds == nil {
			if !matched {
				patience, forever = 0, true
			}
			matched = true
			continue
		}
		seconds := time.Duration(max(0, *t.TolerationSeconds)) * time.Second
		if !matched || forever || seconds < patience {
			patience, forever = seconds, false
		}
		matched = true
	}
	switch {
	case matched:
		return patience, forever
	case taint.Key == corev1.TaintNodeUnreachable:
		return cfg.EvictAfterLost, false
	case taint.Key == corev1.TaintNodeNotReady:
		return cfg.EvictAfterNotReady, false
	}
	return 0, false
}

// tolerates implements the matching rules of core/v1 Toleration.
func tolerates(t *corev1.Toleration, taint corev1.Taint) bool {
	if t.Effect != "" && t.Effect != taint.Effect || t.Key != "" && t.Key != taint.Key {
		return false
	}
	switch t.Operator {
	case corev1.TolerationOpExists:
		return true
	case "", corev1.TolerationOpEqual:
		return t.Key != "" && t.Value == taint.Value
	}
	return false
}
