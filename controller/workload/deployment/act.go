package deployment

import (
	"context"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"lighter.dev/lighter/api/v1alpha1"
)

// reasonScaled is the event for each change of a ReplicaSet's size.
const reasonScaled = "ScalingReplicaSet"

// act carries a step out and writes the status. is is the Deployment in the
// API, wanted the same with its images pinned.
func (c *Controller) act(ctx context.Context, is, wanted *appsv1.Deployment, pins pinning, next step) error {
	if next.create != nil {
		if err := c.createSet(ctx, is, wanted, &next); err != nil {
			return err
		}
	}
	for _, s := range next.change {
		if err := c.changeSet(ctx, is, s); err != nil {
			return err
		}
	}
	for _, rs := range next.remove {
		err := c.client.AppsV1().ReplicaSets(rs.Namespace).Delete(ctx, rs.Name, metav1.DeleteOptions{
			Preconditions: &metav1.Preconditions{UID: &rs.UID, ResourceVersion: &rs.ResourceVersion},
		})
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("remove old replicaset %s: %w", rs.Name, err)
		}
		c.log.Info("removed old revision", "deployment", key(is), "replicaset", rs.Name, "revision", revisionOf(rs))
	}
	return c.writeStatus(ctx, is, pins, next)
}

// createSet creates the new ReplicaSet. If its name is taken by one with
// another template or owner, two templates have one hash: collisionCount goes
// up, and the next pass finds another name.
func (c *Controller) createSet(ctx context.Context, is, wanted *appsv1.Deployment, next *step) error {
	created, err := c.client.AppsV1().ReplicaSets(is.Namespace).Create(ctx, next.create, metav1.CreateOptions{})
	switch {
	case err == nil:
		c.log.Info("rollout started", "deployment", key(is), "replicaset", created.Name, "revision", next.revision, "replicas", size(created))
		if size(created) > 0 {
			c.recorder.Eventf(is, corev1.EventTypeNormal, reasonScaled, "Scaled up replica set %s from 0 to %d", created.Name, size(created))
		}
		return nil
	case apierrors.IsAlreadyExists(err):
		return c.resolveCollision(ctx, is, wanted, next)
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return nil
	}
	message := fmt.Sprintf("Failed to create new replica set %q: %v", next.create.Name, err)
	c.recorder.Event(is, corev1.EventTypeWarning, reasonCreateError, message)
	if hasDeadline(is) {
		put(&next.status, progressing(corev1.ConditionFalse, reasonCreateError, message), c.now(), false)
		if statusErr := c.updateStatus(ctx, is, next.status, nil); statusErr != nil {
			c.log.Warn("cannot write status", "deployment", key(is), "error", statusErr)
		}
	}
	return fmt.Errorf("create replicaset %s: %w", next.create.Name, err)
}

func (c *Controller) resolveCollision(ctx context.Context, is, wanted *appsv1.Deployment, next *step) error {
	taken, err := c.client.AppsV1().ReplicaSets(is.Namespace).Get(ctx, next.create.Name, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("read the replicaset that has the name: %w", err)
	}
	if metav1.IsControlledBy(taken, is) && sameTemplate(&taken.Spec.Template, &wanted.Spec.Template) {
		return nil // the cache was behind: this is the one
	}
	status := is.Status.DeepCopy()
	if status.CollisionCount == nil {
		status.CollisionCount = new(int32)
	}
	*status.CollisionCount++
	if err := c.updateStatus(ctx, is, *status, nil); err != nil {
		return fmt.Errorf("count a hash collision with replicaset %s: %w", taken.Name, err)
	}
	return fmt.Errorf("replicaset %s belongs to another template: trying another name", taken.Name)
}

func (c *Controller) changeSet(ctx context.Context, is *appsv1.Deployment, s *set) error {
	before, after := size(s.is), size(s.want)
	if _, err := c.client.AppsV1().ReplicaSets(s.want.Namespace).Update(ctx, s.want, metav1.UpdateOptions{}); err != nil {
		return fmt.Errorf("change replicaset %s: %w", s.want.Name, err)
	}
	if before == after {
		return nil
	}
	direction := "down"
	if after > before {
		direction = "up"
	}
	c.log.Info("scaled replicaset", "deployment", key(is), "replicaset", s.want.Name, "from", before, "to", after)
	c.recorder.Eventf(is, corev1.EventTypeNormal, reasonScaled, "Scaled %s replica set %s from %d to %d", direction, s.want.Name, before, after)
	return nil
}

// writeStatus writes status and annotations if they changed, and tells the user
// once about images that the rollout waits for.
func (c *Controller) writeStatus(ctx context.Context, is *appsv1.Deployment, pins pinning, next step) error {
	annotations := map[string]string{observedAnnotation: pins.observed.String()}
	if next.revision != "" {
		annotations[revisionAnnotation] = next.revision
	}
	before, after := find(&is.Status, appsv1.DeploymentProgressing), find(&next.status, appsv1.DeploymentProgressing)
	if after != nil && after.Reason == reasonWaiting && (before == nil || before.Reason != reasonWaiting || before.Message != after.Message) {
		c.log.Info("rollout waits for an image", "deployment", key(is), "why", after.Message)
		c.recorder.Event(is, corev1.EventTypeWarning, reasonWaiting, after.Message)
	}
	return c.updateStatus(ctx, is, next.status, annotations)
}

// updateStatus writes through the status subresource, which lets annotations
// pass and keeps spec and labels.
func (c *Controller) updateStatus(ctx context.Context, is *appsv1.Deployment, status appsv1.DeploymentStatus, annotations map[string]string) error {
	changed := *is
	changed.Annotations = map[string]string{}
	for name, value := range is.Annotations {
		changed.Annotations[name] = value
	}
	for name, value := range annotations {
		setAnnotation(&changed.Annotations, name, value)
	}
	changed.Status = status
	if equality.Semantic.DeepEqual(is.Status, status) && equality.Semantic.DeepEqual(is.Annotations, changed.Annotations) {
		return nil
	}
	_, err := c.client.AppsV1().Deployments(is.Namespace).UpdateStatus(ctx, &changed, metav1.UpdateOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("write status: %w", err)
	}
	return nil
}

// dropOvertaken removes explicit pins that a newer build has overtaken. The
// digests are recorded in the same write, so that it happens once.
func (c *Controller) dropOvertaken(ctx context.Context, is *appsv1.Deployment, pins pinning) error {
	changed := is.DeepCopy()
	setAnnotation(&changed.Spec.Template.Annotations, v1alpha1.DigestsAnnotation, pins.explicit.String())
	setAnnotation(&changed.Annotations, observedAnnotation, pins.observed.String())
	if _, err := c.client.AppsV1().Deployments(is.Namespace).Update(ctx, changed, metav1.UpdateOptions{}); err != nil {
		return fmt.Errorf("drop image pins that a newer build has overtaken: %w", err)
	}
	c.log.Info("a newer build ends the pin of a rollback", "deployment", key(is))
	return nil
}

func key(d *appsv1.Deployment) string { return d.Namespace + "/" + d.Name }
