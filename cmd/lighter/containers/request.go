package containers

import (
	"context"
	"encoding/json"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/retry"

	"lighter.dev/lighter/api/v1alpha1"
)

// ask writes the container's next request. unneeded tells whether there is
// nothing to ask for, by the newest version of the pod, which is returned as it
// was before the request.
func (c *Cluster) ask(ctx context.Context, name string, unneeded func(*corev1.Pod) bool, next v1alpha1.RunRequest) (before *corev1.Pod, asked bool, err error) {
	err = retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		pod, err := c.find(ctx, name)
		if err != nil {
			return err
		}
		before = pod
		if err := c.checkOwn(ctx, pod, name); err != nil {
			return err
		}
		if unneeded(pod) {
			return nil
		}
		var last v1alpha1.RunRequest
		if text := pod.Annotations[v1alpha1.RunAnnotation]; text != "" {
			if err := json.Unmarshal([]byte(text), &last); err != nil {
				return fmt.Errorf("container %s: annotation %s: %w", name, v1alpha1.RunAnnotation, err)
			}
		}
		next.Number = last.Number + 1
		text, err := json.Marshal(next)
		if err != nil {
			return err
		}
		asked = true
		return c.annotate(ctx, pod, v1alpha1.RunAnnotation, string(text))
	})
	return before, asked, err
}

// annotate sets an annotation of this very version of a pod; another is a conflict.
func (c *Cluster) annotate(ctx context.Context, pod *corev1.Pod, key, value string) error {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"uid": pod.UID, "resourceVersion": pod.ResourceVersion, "annotations": map[string]string{key: value},
	}})
	if err != nil {
		return err
	}
	_, err = c.Kube.CoreV1().Pods(pod.Namespace).Patch(ctx, pod.Name, types.MergePatchType, patch, metav1.PatchOptions{})
	return err
}

// checkOwn refuses pods that cannot be stopped and started, and says what to do.
func (c *Cluster) checkOwn(ctx context.Context, pod *corev1.Pod, name string) error {
	if owner := metav1.GetControllerOf(pod); owner != nil {
		kind, of := c.manager(ctx, pod.Namespace, owner)
		return fmt.Errorf("pod %s belongs to %s %s, which would replace it: scale that (lighter scale %s/%s --replicas=N), or restart it (lighter rollout restart)", name, kind, of, kind, of)
	}
	if _, ours := pod.Annotations[v1alpha1.ContainerAnnotation]; !ours {
		return fmt.Errorf("pod %s was not made by \"lighter run\": it cannot be stopped and started again, only deleted (lighter rm -f %s)", name, name)
	}
	return nil
}

// manager is the owner's owner if there is one: people scale the Deployment, not
// its ReplicaSet.
func (c *Cluster) manager(ctx context.Context, namespace string, owner *metav1.OwnerReference) (kind, name string) {
	if owner.Kind != "ReplicaSet" {
		return owner.Kind, owner.Name
	}
	set, err := c.Kube.AppsV1().ReplicaSets(namespace).Get(ctx, owner.Name, metav1.GetOptions{})
	if err != nil || metav1.GetControllerOf(set) == nil {
		return owner.Kind, owner.Name
	}
	above := metav1.GetControllerOf(set)
	return above.Kind, above.Name
}
