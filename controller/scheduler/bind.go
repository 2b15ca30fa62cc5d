package scheduler

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"lighter.dev/lighter/controller/scheduler/fit"
	"lighter.dev/lighter/controller/scheduler/queue"
)

// Reasons of events, as kube-scheduler has them.
const (
	reasonScheduled = "Scheduled"
	reasonFailed    = "FailedScheduling"
)

// writeTimeout bounds one request: the pod is tried again after it.
const writeTimeout = 10 * time.Second

// bind writes a decision. On failure the pod leaves the node it was assumed on.
func (s *Scheduler) bind(ctx context.Context, item *queue.Item, pod *corev1.Pod, node string) {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	err := s.client.CoreV1().Pods(pod.Namespace).Bind(ctx, &corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID},
		Target:     corev1.ObjectReference{Kind: "Node", Name: node},
	}, metav1.CreateOptions{})
	if err == nil {
		s.log.Info("pod scheduled", "pod", pod.Namespace+"/"+pod.Name, "node", node)
		s.recorder.Eventf(pod, corev1.EventTypeNormal, reasonScheduled, "Successfully assigned %s/%s to %s", pod.Namespace, pod.Name, node)
		return
	}
	s.retract(pod.UID)
	if apierrors.IsNotFound(err) {
		s.queue.Forget(pod.UID) // deleted in the meantime
		return
	}
	s.log.Warn("cannot bind pod, will try again", "pod", pod.Namespace+"/"+pod.Name, "node", node, "error", err)
	s.recorder.Eventf(pod, corev1.EventTypeWarning, reasonFailed, "Binding to %s failed: %v", node, err)
	s.queue.Failed(item, 0)
}

// retract takes an assumption back, unless an event has confirmed it: a request
// can time out and yet have been carried out.
func (s *Scheduler) retract(uid types.UID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if known, _ := s.cluster.Placed(uid); known != nil && known.Object.Spec.NodeName == "" {
		s.cluster.Remove(uid)
	}
}

// reportFailure tells the pod's owner why it fits nowhere, by event and by the
// condition PodScheduled, each only when the text is news.
func (s *Scheduler) reportFailure(ctx context.Context, pod *corev1.Pod, failure *fit.Failure) {
	message := failure.Error()
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodScheduled && condition.Status == corev1.ConditionFalse &&
			condition.Reason == corev1.PodReasonUnschedulable && condition.Message == message {
			return
		}
	}
	s.log.Info("pod fits nowhere", "pod", pod.Namespace+"/"+pod.Name, "why", message)
	s.recorder.Event(pod, corev1.EventTypeWarning, reasonFailed, message)
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	patch, err := unschedulablePatch(pod, message)
	if err == nil {
		_, err = s.client.CoreV1().Pods(pod.Namespace).Patch(ctx, pod.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	}
	// A conflict means that the pod has changed, perhaps got its node: then
	// this condition is old news.
	if err != nil && !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
		s.log.Warn("cannot write the condition PodScheduled", "pod", pod.Namespace+"/"+pod.Name, "error", err)
	}
}

func unschedulablePatch(pod *corev1.Pod, message string) ([]byte, error) {
	condition := corev1.PodCondition{
		Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonUnschedulable,
		Message: message, LastTransitionTime: metav1.Now(), ObservedGeneration: pod.Generation,
	}
	for _, is := range pod.Status.Conditions {
		if is.Type == condition.Type && is.Status == condition.Status {
			condition.LastTransitionTime = is.LastTransitionTime
		}
	}
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": pod.UID, "resourceVersion": pod.ResourceVersion},
		"status":   map[string]any{"conditions": []corev1.PodCondition{condition}},
	})
	if err != nil {
		return nil, fmt.Errorf("encode condition: %w", err)
	}
	return patch, nil
}
