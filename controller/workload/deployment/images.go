package deployment

import (
	"cmp"
	"fmt"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/tools/cache"

	"lighter.dev/lighter/api/v1alpha1"
)

// tagIndex maps "<namespace>/<normalised reference>" to the Images that claim
// it, and to the Deployments that name it.
const tagIndex = "lighter.dev/image-tag"

func tagKey(namespace, ref string) string { return namespace + "/" + ref }

// indexTags adds tagIndex to both caches.
func indexTags(images, deployments cache.SharedIndexInformer) error {
	if err := images.AddIndexers(cache.Indexers{tagIndex: func(obj any) ([]string, error) {
		image, ok := obj.(*v1alpha1.Image)
		if !ok {
			return nil, nil
		}
		return imageTagKeys(image), nil
	}}); err != nil {
		return fmt.Errorf("images by tag: %w", err)
	}
	if err := deployments.AddIndexers(cache.Indexers{tagIndex: func(obj any) ([]string, error) {
		d, ok := obj.(*appsv1.Deployment)
		if !ok {
			return nil, nil
		}
		keys := imageRefs(&d.Spec.Template.Spec)
		for i, ref := range keys {
			keys[i] = tagKey(d.Namespace, ref)
		}
		return keys, nil
	}}); err != nil {
		return fmt.Errorf("deployments by tag: %w", err)
	}
	return nil
}

func imageTagKeys(image *v1alpha1.Image) []string {
	keys := make([]string, 0, len(image.Spec.Tags))
	for _, tag := range image.Spec.Tags {
		if ref, err := v1alpha1.NormalizeTag(tag); err == nil {
			keys = append(keys, tagKey(image.Namespace, ref))
		}
	}
	return keys
}

// imageState looks a reference up. Where two Images claim it, the older one
// has it, so that a newcomer cannot take a running tag over by accident.
func (c *Controller) imageState(namespace, ref string) imageState {
	found, err := c.images.ByIndex(tagIndex, tagKey(namespace, ref))
	if err != nil || len(found) == 0 {
		return imageState{}
	}
	images := make([]*v1alpha1.Image, 0, len(found))
	for _, obj := range found {
		if image, ok := obj.(*v1alpha1.Image); ok {
			images = append(images, image)
		}
	}
	oldest := slices.MinFunc(images, func(a, b *v1alpha1.Image) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
	})
	return imageState{found: true, digest: oldest.Status.Digest, advice: advice(oldest)}
}

// advice says why an image has no digest and what helps.
func advice(image *v1alpha1.Image) string {
	if meta.IsStatusConditionTrue(image.Status.Conditions, v1alpha1.ImageBuilding) {
		return fmt.Sprintf("image %q is being built", image.Name)
	}
	built := meta.FindStatusCondition(image.Status.Conditions, v1alpha1.ImageBuilt)
	if built != nil && meta.IsStatusConditionFalse(image.Status.Conditions, v1alpha1.ImageBuilt) {
		return fmt.Sprintf("the last build of image %q did not succeed (%s): see \"lighter describe image %s\", then run \"lighter apply -f\" again with its manifest", image.Name, built.Reason, image.Name)
	}
	return fmt.Sprintf("image %q %s", image.Name, image.Missing())
}

// imageChanged wakes the Deployments that name one of the image's tags, those
// that it has lost included.
func (c *Controller) imageChanged(old, obj any) {
	for _, state := range []any{old, obj} {
		image, ok := state.(*v1alpha1.Image)
		if !ok {
			continue
		}
		for _, key := range imageTagKeys(image) {
			found, err := c.deploymentIndex.ByIndex(tagIndex, key)
			if err != nil {
				continue
			}
			for _, d := range found {
				c.runner.EnqueueObject(d)
			}
		}
	}
}
