package apply

import (
	"encoding/json"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"lighter.dev/lighter/api/v1alpha1"
)

// digests are the images that this run has built: normalised name to digest.
type digests map[string]string

// add records the names of an Image, as the server has defaulted them.
func (d digests) add(image *unstructured.Unstructured, digest string) error {
	tags, _, err := unstructured.NestedStringSlice(image.Object, "spec", "tags")
	if err != nil {
		return fmt.Errorf("image %s: %w", image.GetName(), err)
	}
	for _, tag := range tags {
		name, err := v1alpha1.NormalizeTag(tag)
		if err != nil {
			return fmt.Errorf("image %s: tag %s: %w", image.GetName(), tag, err)
		}
		d[name] = digest
	}
	return nil
}

// stale tells whether a pod runs an older build of an image than the one we
// made: its pins are in an annotation (hack/decisions/0003-digest-pins.md).
func (d digests) stale(pod *corev1.Pod) bool {
	if len(d) == 0 {
		return false
	}
	pins := map[string]string{}
	_ = json.Unmarshal([]byte(pod.Annotations[v1alpha1.DigestsAnnotation]), &pins) // no pins, no digest
	for _, containers := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for _, container := range containers {
			name, err := v1alpha1.NormalizeTag(container.Image)
			if err != nil {
				continue
			}
			if want, ours := d[name]; ours && pins[name] != want {
				return true
			}
		}
	}
	return false
}
