package deployment

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// size is spec.replicas, which the API server defaults to 1.
func size(rs *appsv1.ReplicaSet) int32 {
	if rs.Spec.Replicas == nil {
		return 1
	}
	return *rs.Spec.Replicas
}

// wantedSize is the Deployment's spec.replicas.
func wantedSize(d *appsv1.Deployment) int32 {
	if d.Spec.Replicas == nil {
		return 1
	}
	return *d.Spec.Replicas
}

func isRolling(d *appsv1.Deployment) bool {
	return d.Spec.Strategy.Type != appsv1.RecreateDeploymentStrategyType
}

// fenceposts resolves maxSurge (rounded up) and maxUnavailable (rounded down)
// to numbers of pods. Both being 0 would allow no step at all, so one pod may
// then be unavailable.
func fenceposts(d *appsv1.Deployment) (surge, unavailable int32) {
	if !isRolling(d) {
		return 0, 0
	}
	quarter := intstr.FromString("25%")
	maxSurge, maxUnavailable := &quarter, &quarter
	if rolling := d.Spec.Strategy.RollingUpdate; rolling != nil {
		maxSurge = cmp.Or(rolling.MaxSurge, maxSurge)
		maxUnavailable = cmp.Or(rolling.MaxUnavailable, maxUnavailable)
	}
	wanted := wantedSize(d)
	surge, unavailable = scaled(maxSurge, wanted, true), scaled(maxUnavailable, wanted, false)
	if surge == 0 && unavailable == 0 {
		unavailable = 1
	}
	return surge, min(unavailable, wanted)
}

// scaled is a number or a percentage of total. The API server has validated it.
func scaled(value *intstr.IntOrString, total int32, roundUp bool) int32 {
	number, err := intstr.GetScaledValueFromIntOrPercent(value, int(total), roundUp)
	if err != nil {
		return 0
	}
	return int32(number)
}

// set is a ReplicaSet as observed and as it should be. Only the fields that
// this reconciler owns differ: spec.replicas, spec.minReadySeconds and
// annotations; the rest of the two is shared.
type set struct {
	is, want *appsv1.ReplicaSet
}

func newPair(rs *appsv1.ReplicaSet) *set {
	want := *rs
	want.Annotations = maps.Clone(rs.Annotations)
	want.Spec.Replicas = new(size(rs))
	return &set{is: rs, want: &want}
}

// scaleTo sets the wanted size and the two annotations that later tell a
// scaling of the Deployment from a rollout.
func (s *set) scaleTo(replicas int32, d *appsv1.Deployment) {
	surge, _ := fenceposts(d)
	s.want.Spec.Replicas = &replicas
	if s.want.Annotations == nil {
		s.want.Annotations = map[string]string{}
	}
	s.want.Annotations[desiredAnnotation] = fmt.Sprint(wantedSize(d))
	s.want.Annotations[maxAnnotation] = fmt.Sprint(wantedSize(d) + surge)
}

func (s *set) changed() bool {
	return size(s.is) != size(s.want) || s.is.Spec.MinReadySeconds != s.want.Spec.MinReadySeconds ||
		!maps.Equal(s.is.Annotations, s.want.Annotations)
}

func active(sets []*set) []*set {
	var some []*set
	for _, s := range sets {
		if size(s.want) > 0 {
			some = append(some, s)
		}
	}
	return some
}

func total(sets []*set) (replicas int32) {
	for _, s := range sets {
		replicas += size(s.want)
	}
	return replicas
}

func available(sets []*set) (replicas int32) {
	for _, s := range sets {
		replicas += s.is.Status.AvailableReplicas
	}
	return replicas
}

func annotatedNumber(rs *appsv1.ReplicaSet, key string) (int32, bool) {
	number, err := strconv.ParseInt(rs.Annotations[key], 10, 32)
	return int32(number), err == nil && number >= 0
}

// isScaling tells whether spec.replicas changed since the active ReplicaSets
// were last scaled.
func isScaling(d *appsv1.Deployment, sets []*set) bool {
	return slices.ContainsFunc(active(sets), func(s *set) bool {
		desired, known := annotatedNumber(s.is, desiredAnnotation)
		return known && desired != wantedSize(d)
	})
}

// scale brings the Deployment to its size without moving the rollout on. With
// one active ReplicaSet that one takes the whole size; with several, each
// grows or shrinks in proportion, which keeps the risk of a rollout in its
// middle where it was.
func scale(d *appsv1.Deployment, fresh *set, old []*set) {
	all := slices.Clone(old)
	if fresh != nil {
		all = append(all, fresh)
	}
	busy := active(all)
	switch {
	case len(all) == 0:
	case len(busy) == 1:
		resize(busy[0], wantedSize(d), d)
	case len(busy) == 0 && fresh != nil:
		resize(fresh, wantedSize(d), d)
	case len(busy) == 0:
		resize(slices.MaxFunc(old, func(a, b *set) int { return byAge(a.is, b.is) }), wantedSize(d), d)
	case saturated(d, fresh):
		for _, s := range active(old) {
			s.scaleTo(0, d)
		}
	case isRolling(d):
		scaleInProportion(d, busy)
	}
}

// resize avoids a write when there is nothing to change.
func resize(s *set, replicas int32, d *appsv1.Deployment) {
	if size(s.want) != replicas {
		s.scaleTo(replicas, d)
	}
}

// saturated tells whether the new ReplicaSet serves alone already.
func saturated(d *appsv1.Deployment, fresh *set) bool {
	if fresh == nil {
		return false
	}
	desired, known := annotatedNumber(fresh.is, desiredAnnotation)
	wanted := wantedSize(d)
	return known && desired == wanted && size(fresh.is) == wanted && fresh.is.Status.AvailableReplicas == wanted
}

// scaleInProportion distributes what is to be added or removed, largest
// ReplicaSet first; that one also gets what rounding leaves over. Between equal
// ones, growth goes to the newer and shrinking to the older.
func scaleInProportion(d *appsv1.Deployment, busy []*set) {
	surge, _ := fenceposts(d)
	var allowed int32
	if wantedSize(d) > 0 {
		allowed = wantedSize(d) + surge
	}
	toAdd := allowed - total(busy)
	slices.SortFunc(busy, func(a, b *set) int {
		age := byAge(a.is, b.is)
		if toAdd > 0 {
			age = -age
		}
		return cmp.Or(-cmp.Compare(size(a.want), size(b.want)), age)
	})
	var added int32
	sizes := make([]int32, len(busy))
	for i, s := range busy {
		share := fraction(d, s.is, surge)
		if toAdd > 0 {
			share = min(share, toAdd-added)
		} else {
			share = max(share, toAdd-added)
		}
		if toAdd == 0 {
			share = 0
		}
		sizes[i] = size(s.is) + share
		added += share
	}
	sizes[0] = max(0, sizes[0]+toAdd-added)
	for i, s := range busy {
		s.scaleTo(sizes[i], d)
	}
}

// fraction is how much one ReplicaSet would grow if it kept its share of the
// Deployment's former size (replicas plus surge).
func fraction(d *appsv1.Deployment, rs *appsv1.ReplicaSet, surge int32) int32 {
	if wantedSize(d) == 0 {
		return -size(rs)
	}
	former, known := annotatedNumber(rs, maxAnnotation)
	if !known || former == 0 {
		former = d.Status.Replicas // made by a client that sets no annotations
	}
	if former == 0 {
		return 0
	}
	return int32(math.Round(float64(size(rs))*float64(wantedSize(d)+surge)/float64(former))) - size(rs)
}
