package lifecycle

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
)

// indexByNode names the informer index of pods by the node they are bound to.
const indexByNode = "lifecycle/node"

// evictionsAtOnce is how many pods of a node are evicted in parallel.
const evictionsAtOnce = 8

func indexPodsByNode(pods cache.SharedIndexInformer) error {
	if _, exists := pods.GetIndexer().GetIndexers()[indexByNode]; exists {
		return nil
	}
	err := pods.AddIndexers(cache.Indexers{indexByNode: func(obj any) ([]string, error) {
		if pod, ok := obj.(*corev1.Pod); ok && pod.Spec.NodeName != "" {
			return []string{pod.Spec.NodeName}, nil
		}
		return nil, nil
	}})
	if err != nil {
		return fmt.Errorf("index pods by node: %w", err)
	}
	return nil
}

func podsOf(pods cache.Indexer, node string) ([]*corev1.Pod, error) {
	objects, err := pods.ByIndex(indexByNode, node)
	if err != nil {
		return nil, fmt.Errorf("list pods of node %s: %w", node, err)
	}
	all := make([]*corev1.Pod, 0, len(objects))
	for _, obj := range objects {
		if pod, ok := obj.(*corev1.Pod); ok {
			all = append(all, pod)
		}
	}
	return all, nil
}

// carryOut writes what the plan says. The taints come before the evictions, or the
// scheduler could send a replacement to the node that was lost.
func (n *Nodes) carryOut(ctx context.Context, node *corev1.Node, p plan) error {
	if p.lost && readyStatus(node) != corev1.ConditionUnknown {
		if err := n.writeUnknown(ctx, node); err != nil {
			return err
		}
	}
	if p.retaint {
		if err := n.writeTaints(ctx, node, p.taints); err != nil {
			return err
		}
	}
	if !p.lost && !p.evict {
		return nil
	}
	pods, err := podsOf(n.pods, node.Name)
	if err != nil {
		return err
	}
	return n.eachPod(pods, func(pod *corev1.Pod) error { return n.treatPod(ctx, pod, node.Name, p) })
}

// eachPod runs act for all pods, some at a time, and joins the errors.
func (n *Nodes) eachPod(pods []*corev1.Pod, act func(*corev1.Pod) error) error {
	var group sync.WaitGroup
	slots := make(chan struct{}, evictionsAtOnce)
	errs := make([]error, len(pods))
	for i, pod := range pods {
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			errs[i] = act(pod)
		})
	}
	group.Wait()
	return errors.Join(errs...)
}

// treatPod marks a pod of a lost node as not ready and evicts it when its time has come.
func (n *Nodes) treatPod(ctx context.Context, pod *corev1.Pod, node string, p plan) error {
	if pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
		return nil
	}
	if p.lost {
		if err := n.markNotReady(ctx, pod); err != nil {
			return err
		}
	}
	if !p.evict || pod.DeletionTimestamp != nil {
		return nil
	}
	now := n.now()
	at, ok := evictionTime(pod, noExecute(p.taints), now, n.cfg)
	if !ok {
		return nil
	}
	if wait := at.Sub(now); wait > 0 {
		n.runner.EnqueueAfter(node, wait)
		return nil
	}
	n.Recorder.Eventf(pod, corev1.EventTypeNormal, "TaintManagerEviction", "Evicting the pod: node %s is not usable", node)
	n.Log.Info("evict pod", "pod", pod.Namespace+"/"+pod.Name, "node", node)
	err := n.Client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{
		Preconditions: &metav1.Preconditions{UID: &pod.UID}})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return fmt.Errorf("evict pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	return nil
}

// markNotReady takes a pod out of its services: nobody can tell any more whether it serves.
func (n *Nodes) markNotReady(ctx context.Context, pod *corev1.Pod) error {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady && c.Status == corev1.ConditionFalse {
			return nil
		}
	}
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": pod.UID},
		"status": map[string]any{"conditions": []corev1.PodCondition{{
			Type: corev1.PodReady, Status: corev1.ConditionFalse, Reason: "NodeLost",
			Message: "The agent of node " + pod.Spec.NodeName + " stopped renewing its lease", LastTransitionTime: metav1.Now(),
		}}},
	})
	if err != nil {
		return fmt.Errorf("mark pod not ready: %w", err)
	}
	_, err = n.Client.CoreV1().Pods(pod.Namespace).Patch(ctx, pod.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return fmt.Errorf("mark pod %s/%s not ready: %w", pod.Namespace, pod.Name, err)
	}
	return nil
}

// writeUnknown says that the agent's last word on its conditions no longer counts.
func (n *Nodes) writeUnknown(ctx context.Context, node *corev1.Node) error {
	conditions := []corev1.NodeCondition{{Type: corev1.NodeReady}}
	for _, c := range node.Status.Conditions {
		if c.Type != corev1.NodeReady {
			conditions = append(conditions, corev1.NodeCondition{Type: c.Type})
		}
	}
	for i := range conditions {
		c := &conditions[i]
		c.Status, c.Reason = corev1.ConditionUnknown, "NodeStatusUnknown"
		c.Message = "The agent stopped renewing its lease"
		c.LastTransitionTime = metav1.Now()
		for _, before := range node.Status.Conditions {
			if before.Type == c.Type {
				c.LastHeartbeatTime = before.LastHeartbeatTime
			}
		}
	}
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": node.UID}, "status": map[string]any{"conditions": conditions}})
	if err != nil {
		return fmt.Errorf("mark node unknown: %w", err)
	}
	_, err = n.Client.CoreV1().Nodes().Patch(ctx, node.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	if err != nil {
		return fmt.Errorf("mark node %s unknown: %w", node.Name, err)
	}
	n.Recorder.Eventf(node, corev1.EventTypeWarning, "NodeNotReady", "The agent of node %s stopped renewing its lease", node.Name)
	return nil
}

// writeTaints replaces the list of taints, unless somebody changed the node meanwhile:
// a list has no merge that keeps another writer's change.
func (n *Nodes) writeTaints(ctx context.Context, node *corev1.Node, taints []corev1.Taint) error {
	current, err := n.Client.CoreV1().Nodes().Get(ctx, node.Name, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("read node %s: %w", node.Name, err)
	}
	var ours []corev1.Taint
	for _, t := range taints {
		if t.Key == corev1.TaintNodeUnreachable || t.Key == corev1.TaintNodeNotReady {
			ours = append(ours, t)
		}
	}
	merged, changed := mergeTaints(current.Spec.Taints, ours, n.now())
	if !changed || current.UID != node.UID {
		return nil
	}
	current.Spec.Taints = merged
	if _, err := n.Client.CoreV1().Nodes().Update(ctx, current, metav1.UpdateOptions{}); err != nil {
		return fmt.Errorf("taint node %s: %w", node.Name, err)
	}
	return nil
}
