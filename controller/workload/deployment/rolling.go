package deployment

import (
	"slices"

	appsv1 "k8s.io/api/apps/v1"
)

// roll makes one step of a rolling update: first it grows the new ReplicaSet as
// far as maxSurge allows; when there is nothing to grow, it shrinks the old
// ones as far as maxUnavailable allows.
func roll(d *appsv1.Deployment, fresh *set, old []*set) {
	before := size(fresh.want)
	if grown := newSize(d, fresh, append(slices.Clone(old), fresh)); grown != before {
		fresh.scaleTo(grown, d)
		return
	}
	shrinkOld(d, fresh, active(old))
}

// newSize is what the new ReplicaSet may have now.
func newSize(d *appsv1.Deployment, fresh *set, all []*set) int32 {
	wanted, is := wantedSize(d), size(fresh.want)
	if is >= wanted || !isRolling(d) {
		return wanted
	}
	surge, _ := fenceposts(d)
	room := wanted + surge - total(all)
	return is + max(0, min(room, wanted-is))
}

// shrinkOld gives up pods of old ReplicaSets, oldest first: unavailable ones
// first, because they serve nobody and would block the rollout, then available
// ones while enough remain. Pods of the new ReplicaSet that are not available
// count against both, so that a broken new version never costs a good old pod.
func shrinkOld(d *appsv1.Deployment, fresh *set, old []*set) {
	_, unavailable := fenceposts(d)
	least := wantedSize(d) - unavailable
	all := append(slices.Clone(old), fresh)
	spare := total(all) - least - (size(fresh.want) - fresh.is.Status.AvailableReplicas)
	if spare <= 0 {
		return
	}
	slices.SortFunc(old, func(a, b *set) int { return byAge(a.is, b.is) })
	for _, s := range old {
		if broken := size(s.want) - s.is.Status.AvailableReplicas; broken > 0 && spare > 0 {
			cut := min(spare, broken)
			s.scaleTo(size(s.want)-cut, d)
			spare -= cut
		}
	}
	spare = available(all) - least
	for _, s := range old {
		if cut := min(spare, size(s.want)); cut > 0 {
			s.scaleTo(size(s.want)-cut, d)
			spare -= cut
		}
	}
}

// recreate makes one step of the strategy Recreate: all old pods go, then, when
// none of them runs any more, the new ones come. ready tells the second half.
func recreate(d *appsv1.Deployment, old []*set, live map[string]int) (ready bool) {
	ready = true
	for _, s := range old {
		resize(s, 0, d)
		if s.changed() || s.is.Status.Replicas > 0 || live[string(s.is.UID)] > 0 {
			ready = false
		}
	}
	return ready
}
