package replicaset

import (
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/kubectl/pkg/util/podutils"
)

// status computes a ReplicaSet's status from its active and terminating pods.
// failure is what the last pass could not do; it becomes the condition
// ReplicaFailure. recheck is when the next pod turns available
// (spec.minReadySeconds after it turned ready), 0 if none waits for that.
func status(rs *appsv1.ReplicaSet, active []*corev1.Pod, terminating int, failure error, now time.Time) (wanted appsv1.ReplicaSetStatus, recheck time.Duration) {
	wanted = *rs.Status.DeepCopy()
	wanted.ObservedGeneration = rs.Generation
	wanted.Replicas = int32(len(active))
	wanted.FullyLabeledReplicas, wanted.ReadyReplicas, wanted.AvailableReplicas = 0, 0, 0
	count := int32(terminating)
	wanted.TerminatingReplicas = &count

	template := labels.SelectorFromSet(rs.Spec.Template.Labels)
	for _, pod := range active {
		if template.Matches(labels.Set(pod.Labels)) {
			wanted.FullyLabeledReplicas++
		}
		if !podutils.IsPodReady(pod) {
			continue
		}
		wanted.ReadyReplicas++
		if podutils.IsPodAvailable(pod, rs.Spec.MinReadySeconds, metav1.NewTime(now)) {
			wanted.AvailableReplicas++
			continue
		}
		left := readySince(pod).Add(time.Duration(rs.Spec.MinReadySeconds) * time.Second).Sub(now)
		if left = max(left, time.Millisecond); recheck == 0 || left < recheck {
			recheck = left
		}
	}
	setFailure(&wanted, failureCondition(rs, len(active), failure, now))
	return wanted, recheck
}

// failureCondition is nil when the last pass did all it wanted to.
func failureCondition(rs *appsv1.ReplicaSet, active int, failure error, now time.Time) *appsv1.ReplicaSetCondition {
	if failure == nil {
		return nil
	}
	reason := reasonFailedDelete
	if active < replicas(rs) {
		reason = reasonFailedCreate
	}
	return &appsv1.ReplicaSetCondition{
		Type:               appsv1.ReplicaSetReplicaFailure,
		Status:             corev1.ConditionTrue,
		Reason:             reason,
		Message:            failure.Error(),
		LastTransitionTime: metav1.NewTime(now),
	}
}

// setFailure replaces the condition ReplicaFailure, keeping the time and text
// of one that says the same already.
func setFailure(status *appsv1.ReplicaSetStatus, failure *appsv1.ReplicaSetCondition) {
	var conditions []appsv1.ReplicaSetCondition
	for _, condition := range status.Conditions {
		if condition.Type != appsv1.ReplicaSetReplicaFailure {
			conditions = append(conditions, condition)
		} else if failure != nil && condition.Reason == failure.Reason {
			failure = &condition
		}
	}
	if failure != nil {
		conditions = append(conditions, *failure)
	}
	status.Conditions = conditions
}
