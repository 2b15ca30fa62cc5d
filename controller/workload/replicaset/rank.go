package replicaset

import (
	"cmp"
	"math"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/kubectl/pkg/util/podutils"
)

// rankForDeletion returns the pods in the order in which they are given up,
// the least useful first, by the rules that users of Kubernetes know: not on a
// node, not running, not ready, cheap by annotation
// controller.kubernetes.io/pod-deletion-cost, on a crowded node, ready for a
// short time, restarted often, young. Ages are compared by magnitude (powers of
// two), so that among pods of about one age the choice is spread by UID and not
// always hits the newest.
func rankForDeletion(active, related []*corev1.Pod, now time.Time) []*corev1.Pod {
	crowd := map[string]int{}
	for _, pod := range related {
		if isActive(pod) {
			crowd[pod.Spec.NodeName]++
		}
	}
	ranked := slices.Clone(active)
	slices.SortFunc(ranked, func(a, b *corev1.Pod) int {
		readyA, readyB := podutils.IsPodReady(a), podutils.IsPodReady(b)
		order := cmp.Or(
			falseFirst(a.Spec.NodeName != "", b.Spec.NodeName != ""),
			cmp.Compare(phaseRank(a), phaseRank(b)),
			falseFirst(readyA, readyB),
			cmp.Compare(deletionCost(a), deletionCost(b)),
			-cmp.Compare(crowd[a.Spec.NodeName], crowd[b.Spec.NodeName]),
		)
		if order == 0 && readyA && readyB {
			order = cmp.Compare(magnitude(readySince(a), now), magnitude(readySince(b), now))
		}
		return cmp.Or(order,
			-cmp.Compare(restarts(a), restarts(b)),
			cmp.Compare(magnitude(a.CreationTimestamp.Time, now), magnitude(b.CreationTimestamp.Time, now)),
			cmp.Compare(a.UID, b.UID),
			cmp.Compare(a.Name, b.Name),
		)
	})
	return ranked
}

func falseFirst(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

func phaseRank(pod *corev1.Pod) int {
	switch pod.Status.Phase {
	case corev1.PodRunning:
		return 2
	case corev1.PodUnknown:
		return 1
	}
	return 0
}

// deletionCost is the pod's annotation; what cannot be parsed counts as 0, as
// the API server only validates it loosely.
func deletionCost(pod *corev1.Pod) int64 {
	cost, err := strconv.ParseInt(pod.Annotations[corev1.PodDeletionCost], 10, 32)
	if err != nil {
		return 0
	}
	return cost
}

func readySince(pod *corev1.Pod) time.Time {
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodReady && condition.Status == corev1.ConditionTrue {
			return condition.LastTransitionTime.Time
		}
	}
	return time.Time{}
}

// magnitude is the power of two of an age in seconds. A missing time counts as
// age 0: the API server has not stamped the pod yet, so it is the newest.
func magnitude(since, now time.Time) int {
	age := now.Sub(since).Seconds()
	if since.IsZero() || age < 1 {
		return 0
	}
	return 1 + int(math.Log2(age))
}

func restarts(pod *corev1.Pod) int32 {
	var most int32
	for _, container := range pod.Status.ContainerStatuses {
		most = max(most, container.RestartCount)
	}
	return most
}
