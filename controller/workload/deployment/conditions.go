package deployment

import (
	"fmt"
	"math"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Reasons of the conditions Progressing and Available. kubectl rollout status
// reads them.
const (
	reasonUpdated     = "ReplicaSetUpdated"
	reasonCreateError = "ReplicaSetCreateError"
	reasonCreated     = "NewReplicaSetCreated"
	reasonFound       = "FoundNewReplicaSet"
	reasonComplete    = "NewReplicaSetAvailable"
	reasonTimedOut    = "ProgressDeadlineExceeded"
	reasonPaused      = "DeploymentPaused"
	reasonResumed     = "DeploymentResumed"
	reasonAvailable   = "MinimumReplicasAvailable"
	reasonUnavailable = "MinimumReplicasUnavailable"
	// reasonWaiting is ours: an image that the template names is an Image that
	// was never built.
	reasonWaiting = "WaitingForImage"
)

func find(status *appsv1.DeploymentStatus, kind appsv1.DeploymentConditionType) *appsv1.DeploymentCondition {
	for i := range status.Conditions {
		if status.Conditions[i].Type == kind {
			return &status.Conditions[i]
		}
	}
	return nil
}

func drop(status *appsv1.DeploymentStatus, kind appsv1.DeploymentConditionType) {
	var kept []appsv1.DeploymentCondition
	for _, condition := range status.Conditions {
		if condition.Type != kind {
			kept = append(kept, condition)
		}
	}
	status.Conditions = kept
}

// put sets a condition. One with the same status and reason stays as it is,
// time and all, unless renew asks for a new lastUpdateTime (progress was made).
func put(status *appsv1.DeploymentStatus, wanted appsv1.DeploymentCondition, now time.Time, renew bool) {
	wanted.LastUpdateTime, wanted.LastTransitionTime = metav1.NewTime(now), metav1.NewTime(now)
	if is := find(status, wanted.Type); is != nil {
		if is.Status == wanted.Status && is.Reason == wanted.Reason && !renew {
			return
		}
		if is.Status == wanted.Status {
			wanted.LastTransitionTime = is.LastTransitionTime
		}
		drop(status, wanted.Type)
	}
	status.Conditions = append(status.Conditions, wanted)
}

func progressing(status corev1.ConditionStatus, reason, message string) appsv1.DeploymentCondition {
	return appsv1.DeploymentCondition{Type: appsv1.DeploymentProgressing, Status: status, Reason: reason, Message: message}
}

// hasDeadline tells whether progress is to be judged at all.
func hasDeadline(d *appsv1.Deployment) bool {
	return d.Spec.ProgressDeadlineSeconds != nil && *d.Spec.ProgressDeadlineSeconds != math.MaxInt32
}

// noteHold keeps the condition Progressing in step with what holds the rollout:
// being paused, or waiting for an image.
func noteHold(d *appsv1.Deployment, status *appsv1.DeploymentStatus, waiting []string, now time.Time) {
	is := find(status, appsv1.DeploymentProgressing)
	reason := ""
	if is != nil {
		reason = is.Reason
	}
	switch {
	case d.Spec.Paused && hasDeadline(d) && reason != reasonPaused && reason != reasonTimedOut:
		put(status, progressing(corev1.ConditionUnknown, reasonPaused, "Deployment is paused"), now, false)
	case !d.Spec.Paused && reason == reasonPaused:
		put(status, progressing(corev1.ConditionUnknown, reasonResumed, "Deployment is resumed"), now, false)
	case len(waiting) == 0 && reason == reasonWaiting: // the deadline counts from now
		put(status, progressing(corev1.ConditionTrue, reasonUpdated, "All images have been built."), now, false)
	}
	if len(waiting) > 0 && !d.Spec.Paused {
		message := strings.Join(waiting, "; ")
		put(status, progressing(corev1.ConditionUnknown, reasonWaiting, message), now, is == nil || is.Message != message)
	}
}

// counts fills the numbers and the condition Available.
func counts(d *appsv1.Deployment, status *appsv1.DeploymentStatus, fresh *set, all []*set, now time.Time) {
	status.ObservedGeneration = d.Generation
	status.Replicas, status.ReadyReplicas, status.UpdatedReplicas = 0, 0, 0
	var terminating int32
	for _, s := range all {
		status.Replicas += s.is.Status.Replicas
		status.ReadyReplicas += s.is.Status.ReadyReplicas
		if s.is.Status.TerminatingReplicas != nil {
			terminating += *s.is.Status.TerminatingReplicas
		}
	}
	if fresh != nil {
		status.UpdatedReplicas = fresh.is.Status.Replicas
	}
	status.TerminatingReplicas = &terminating
	status.AvailableReplicas = available(all)
	status.UnavailableReplicas = max(0, total(all)-status.AvailableReplicas)

	_, unavailable := fenceposts(d)
	condition := appsv1.DeploymentCondition{
		Type: appsv1.DeploymentAvailable, Status: corev1.ConditionFalse, Reason: reasonUnavailable,
		Message: "Deployment does not have minimum availability.",
	}
	if status.AvailableReplicas >= wantedSize(d)-unavailable {
		condition.Status, condition.Reason = corev1.ConditionTrue, reasonAvailable
		condition.Message = "Deployment has minimum availability."
	}
	put(status, condition, now, false)
}

// failures passes a ReplicaSet's condition ReplicaFailure on, the new one's
// first.
func failures(status *appsv1.DeploymentStatus, fresh *set, all []*set, now time.Time) {
	if fresh != nil {
		all = append([]*set{fresh}, all...)
	}
	for _, s := range all {
		for _, condition := range s.is.Status.Conditions {
			if condition.Type == appsv1.ReplicaSetReplicaFailure {
				put(status, appsv1.DeploymentCondition{
					Type: appsv1.DeploymentReplicaFailure, Status: condition.Status,
					Reason: condition.Reason, Message: condition.Message,
				}, now, false)
				return
			}
		}
	}
	drop(status, appsv1.DeploymentReplicaFailure)
}

// complete tells whether every replica is new and available.
func complete(d *appsv1.Deployment, status *appsv1.DeploymentStatus) bool {
	wanted := wantedSize(d)
	return status.UpdatedReplicas == wanted && status.Replicas == wanted &&
		status.AvailableReplicas == wanted && status.ObservedGeneration >= d.Generation
}

// advanced tells whether the new status is closer to completion than the old.
func advanced(is, was *appsv1.DeploymentStatus) bool {
	return is.UpdatedReplicas > was.UpdatedReplicas ||
		is.Replicas-is.UpdatedReplicas < was.Replicas-was.UpdatedReplicas ||
		is.ReadyReplicas > was.ReadyReplicas || is.AvailableReplicas > was.AvailableReplicas
}

// judge sets the condition Progressing from what changed since the last status,
// and returns when to look again whether the deadline has passed (0: never).
func judge(d *appsv1.Deployment, status *appsv1.DeploymentStatus, fresh *set, now time.Time) time.Duration {
	if !hasDeadline(d) {
		drop(status, appsv1.DeploymentProgressing)
		return 0
	}
	subject := fmt.Sprintf("Deployment %q", d.Name)
	if fresh != nil {
		subject = fmt.Sprintf("ReplicaSet %q", fresh.is.Name)
	}
	is := find(status, appsv1.DeploymentProgressing)
	switch {
	case is != nil && is.Reason == reasonComplete && status.Replicas == status.UpdatedReplicas:
		return 0 // the last rollout has ended: a lost pod starts no new one
	case complete(d, status):
		put(status, progressing(corev1.ConditionTrue, reasonComplete, subject+" has successfully progressed."), now, false)
		return 0
	case advanced(status, &d.Status):
		put(status, progressing(corev1.ConditionTrue, reasonUpdated, subject+" is progressing."), now, true)
	case is == nil || is.Reason == reasonComplete:
		return 0
	case is.Reason == reasonTimedOut:
		return 0
	case now.After(deadline(d, is)):
		put(status, progressing(corev1.ConditionFalse, reasonTimedOut, subject+" has timed out progressing."), now, false)
		return 0
	}
	// API times have whole seconds: one more makes sure that it has passed.
	return max(0, deadline(d, find(status, appsv1.DeploymentProgressing)).Sub(now)) + time.Second
}

func deadline(d *appsv1.Deployment, condition *appsv1.DeploymentCondition) time.Time {
	return condition.LastUpdateTime.Add(time.Duration(*d.Spec.ProgressDeadlineSeconds) * time.Second)
}
