package deployment

import (
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

// observation is what a decision is made from, besides the Deployment.
type observation struct {
	sets    []*appsv1.ReplicaSet // those that belong to the Deployment
	live    map[string]int       // pods that may still run, by ReplicaSet UID (strategy Recreate only)
	waiting []string             // images without a digest, a sentence each
	now     time.Time
}

// step is what to do next for one Deployment. All of it can be done at once;
// the events that follow from it lead to the next step.
type step struct {
	create   *appsv1.ReplicaSet   // for a new template
	change   []*set               // to be resized or re-annotated
	remove   []*appsv1.ReplicaSet // beyond the history limit
	revision string               // for the Deployment's annotation; "" keeps it
	status   appsv1.DeploymentStatus
	recheck  time.Duration // when time alone will change something; 0: never
}

// decide computes the next step. d is the Deployment with its images pinned.
func decide(d *appsv1.Deployment, seen observation) (step, error) {
	var next step
	next.status = *d.Status.DeepCopy()
	is := findNew(d, seen.sets)
	var fresh *set
	var all, old []*set
	var oldSets []*appsv1.ReplicaSet
	for _, rs := range seen.sets {
		pair := newPair(rs)
		all = append(all, pair)
		if rs == is {
			fresh = pair
			continue
		}
		old, oldSets = append(old, pair), append(oldSets, rs)
	}
	if d.DeletionTimestamp != nil {
		counts(d, &next.status, fresh, all, seen.now)
		return next, nil
	}
	if fresh != nil {
		annotateNew(d, fresh.want, oldSets)
		fresh.want.Spec.MinReadySeconds = d.Spec.MinReadySeconds
	}
	noteHold(d, &next.status, seen.waiting, seen.now)
	held := d.Spec.Paused || len(seen.waiting) > 0
	var err error
	switch {
	case held || isScaling(d, all):
		scale(d, fresh, old)
		if d.Spec.Paused {
			next.remove = outdated(d, oldSets)
		}
	case isRolling(d):
		fresh, err = next.rollOn(d, fresh, old, oldSets, seen.now)
	default:
		if recreate(d, old, seen.live) {
			fresh, err = next.rollOn(d, fresh, old, oldSets, seen.now)
		}
	}
	if err != nil {
		return step{}, err
	}
	if next.create != nil {
		all = append(all, fresh)
	}
	next.finish(d, fresh, all, held, seen.now)
	return next, nil
}

// rollOn creates the new ReplicaSet if there is none, and moves replicas to it.
func (next *step) rollOn(d *appsv1.Deployment, fresh *set, old []*set, oldSets []*appsv1.ReplicaSet, now time.Time) (*set, error) {
	if fresh != nil {
		noteFound(d, &next.status, fresh, now)
		roll(d, fresh, old)
		if complete(d, &d.Status) {
			next.remove = outdated(d, oldSets)
		}
		return fresh, nil
	}
	created, err := newSet(d)
	if err != nil {
		return nil, fmt.Errorf("new ReplicaSet: %w", err)
	}
	fresh = &set{is: created, want: created}
	annotateNew(d, created, oldSets)
	fresh.scaleTo(newSize(d, fresh, append(active(old), fresh)), d)
	next.create = created
	if hasDeadline(d) {
		put(&next.status, progressing(corev1.ConditionTrue, reasonCreated, fmt.Sprintf("Created new replica set %q", created.Name)), now, false)
	}
	return fresh, nil
}

// noteFound starts the clock for a template whose ReplicaSet exists already, if
// the deadline was set later.
func noteFound(d *appsv1.Deployment, status *appsv1.DeploymentStatus, fresh *set, now time.Time) {
	if hasDeadline(d) && find(status, appsv1.DeploymentProgressing) == nil {
		put(status, progressing(corev1.ConditionTrue, reasonFound, fmt.Sprintf("Found new replica set %q", fresh.is.Name)), now, false)
	}
}

// finish collects the changes and completes the status.
func (next *step) finish(d *appsv1.Deployment, fresh *set, all []*set, held bool, now time.Time) {
	for _, s := range all {
		if s.want != next.create && s.changed() {
			next.change = append(next.change, s)
		}
	}
	if fresh != nil {
		next.revision = fresh.want.Annotations[revisionAnnotation]
	}
	counts(d, &next.status, fresh, all, now)
	failures(&next.status, fresh, all, now)
	if !held {
		next.recheck = judge(d, &next.status, fresh, now)
	}
}
