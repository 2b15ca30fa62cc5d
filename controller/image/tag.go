package image

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"lighter.dev/lighter/api/v1alpha1"
	"lighter.dev/lighter/controller/reconcile"
)

// tag writes the status of an Image that is another name of an image. Nothing
// needs to be fetched for that: hosts get the content when they run it.
func (c *Controller) tag(ctx context.Context, image *v1alpha1.Image) error {
	status, err := taggedStatus(image, metav1.NewTime(c.now()))
	if err != nil {
		return reconcile.Final(err)
	}
	if status == nil {
		return nil
	}
	changed := image.DeepCopy()
	changed.Status = *status
	_, err = c.client.LighterV1alpha1().Images(image.Namespace).UpdateStatus(ctx, changed, metav1.UpdateOptions{})
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return nil // the event leads back here
	}
	if err != nil {
		return fmt.Errorf("write status: %w", err)
	}
	c.log.Info("tagged an image", "image", image.Namespace+"/"+image.Name, "ref", image.Spec.Source.Image.Ref)
	c.recorder.Event(changed, corev1.EventTypeNormal, v1alpha1.ReasonTagged, tagMessage(image))
	return nil
}

func tagMessage(image *v1alpha1.Image) string { return "names " + image.Spec.Source.Image.Ref }

// taggedStatus is the status that such an Image has to have, nil if it has it.
// What is there of a build that had the name before is over.
func taggedStatus(image *v1alpha1.Image, now metav1.Time) (*v1alpha1.ImageStatus, error) {
	digest, err := v1alpha1.ParsePinned(image.Spec.Source.Image.Ref)
	if err != nil {
		return nil, fmt.Errorf("spec.source.image.ref: %w", err)
	}
	built := meta.FindStatusCondition(image.Status.Conditions, v1alpha1.ImageBuilt)
	if built != nil && built.Reason == v1alpha1.ReasonTagged && built.ObservedGeneration == image.Generation && image.Status.Digest == digest.String() {
		return nil, nil
	}
	status := &v1alpha1.ImageStatus{ObservedGeneration: image.Generation, Digest: digest.String()}
	status.Conditions = append(status.Conditions, image.Status.Conditions...)
	meta.RemoveStatusCondition(&status.Conditions, v1alpha1.ImageBuilding)
	meta.SetStatusCondition(&status.Conditions, metav1.Condition{
		Type: v1alpha1.ImageBuilt, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonTagged,
		Message: tagMessage(image), ObservedGeneration: image.Generation, LastTransitionTime: now,
	})
	return status, nil
}
