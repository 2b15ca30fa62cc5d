package replicaset

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Reasons of events and of the condition ReplicaFailure, as Kubernetes has them.
const (
	reasonCreated      = "SuccessfulCreate"
	reasonFailedCreate = "FailedCreate"
	reasonDeleted      = "SuccessfulDelete"
	reasonFailedDelete = "FailedDelete"
)

// cacheLag is how long a cache may trail behind the API server in good health.
const cacheLag = 100 * time.Millisecond

// act carries a step out.
func (c *Controller) act(ctx context.Context, rs *appsv1.ReplicaSet, next step) error {
	if next.create > 0 {
		c.log.Info("creating pods", "replicaset", rs.Namespace+"/"+rs.Name, "pods", next.create, "wanted", replicas(rs))
		return c.create(ctx, rs, next.create)
	}
	if len(next.remove) > 0 {
		c.log.Info("deleting pods", "replicaset", rs.Namespace+"/"+rs.Name, "pods", len(next.remove), "wanted", replicas(rs))
		return c.remove(ctx, rs, next.remove)
	}
	return nil
}

// create makes n pods in batches that double while all goes well ("slow
// start"): when every creation fails for one reason, such as a quota, the API
// server sees one attempt a pass and not n.
func (c *Controller) create(ctx context.Context, rs *appsv1.ReplicaSet, n int) error {
	names := podNames(rs, n, func(name string) bool {
		_, err := c.pods.Pods(rs.Namespace).Get(name)
		return err == nil
	})
	for batch := 1; len(names) > 0; batch *= 2 {
		size := min(batch, len(names))
		if err := inParallel(names[:size], func(name string) error { return c.createPod(ctx, rs, name) }); err != nil {
			return err
		}
		names = names[size:]
	}
	return nil
}

// inParallel calls do for every item at once and returns the first error in
// the items' order: the others are most likely the same.
func inParallel[T any](items []T, do func(T) error) error {
	errs := make([]error, len(items))
	var group sync.WaitGroup
	for i, item := range items {
		group.Go(func() { errs[i] = do(item) })
	}
	group.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *Controller) createPod(ctx context.Context, rs *appsv1.ReplicaSet, name string) error {
	c.expect.expect(rs.UID, created(name), c.now())
	_, err := c.client.CoreV1().Pods(rs.Namespace).Create(ctx, newPod(rs, name), metav1.CreateOptions{})
	switch {
	case err == nil:
		c.recorder.Eventf(rs, corev1.EventTypeNormal, reasonCreated, "Created pod: %s", name)
		return nil
	case apierrors.IsAlreadyExists(err):
		// The name comes from the state that this pass saw: an earlier pass
		// or process has made the pod, and the cache will show it. If it is
		// somebody else's pod, the next pass skips its name.
		c.expect.settle(rs.UID, created(name))
		c.runner.EnqueueAfter(rs.Namespace+"/"+rs.Name, cacheLag)
		return nil
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		c.expect.settle(rs.UID, created(name))
		return nil // nothing can be created any more, and that is right
	}
	c.expect.settle(rs.UID, created(name))
	c.recorder.Eventf(rs, corev1.EventTypeWarning, reasonFailedCreate, "Error creating: %v", err)
	return fmt.Errorf("create pod: %w", err)
}

// newPod is the pod that the template describes.
func newPod(rs *appsv1.ReplicaSet, name string) *corev1.Pod {
	template := rs.Spec.Template.DeepCopy()
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name:            name,
			GenerateName:    rs.Name + "-",
			Namespace:       rs.Namespace,
			Labels:          maps.Clone(template.Labels),
			Annotations:     maps.Clone(template.Annotations),
			Finalizers:      slices.Clone(template.Finalizers),
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(rs, kind)},
		},
		Spec: template.Spec,
	}
}

func (c *Controller) remove(ctx context.Context, rs *appsv1.ReplicaSet, pods []*corev1.Pod) error {
	return inParallel(pods, func(pod *corev1.Pod) error {
		c.expect.expect(rs.UID, deleted(pod.UID), c.now())
		err := c.client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{
			Preconditions: metav1.NewUIDPreconditions(string(pod.UID)),
		})
		if err == nil {
			c.recorder.Eventf(rs, corev1.EventTypeNormal, reasonDeleted, "Deleted pod: %s", pod.Name)
			return nil
		}
		c.expect.settle(rs.UID, deleted(pod.UID))
		if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
			return nil // gone already, or replaced by another pod of that name
		}
		c.recorder.Eventf(rs, corev1.EventTypeWarning, reasonFailedDelete, "Error deleting: %v", err)
		return fmt.Errorf("delete pod %s: %w", pod.Name, err)
	})
}
