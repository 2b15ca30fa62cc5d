package apply

import (
	"fmt"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"lighter.dev/lighter/api/v1alpha1"
)

// contentState is what an Image's status says of its content.
type contentState int

const (
	// pending: the cluster is about to make it, or does.
	pending contentState = iota
	// made: it is that of the spec, and of the ConfigMap.
	made
	// failed: a build ended without it.
	failed
	// absent: a command has to send it first.
	absent
)

// judgeContent says how far an Image's content is, and why in words. hash is
// that of the ConfigMap it is built from, "" if it is from none.
func judgeContent(image *v1alpha1.Image, hash string) (state contentState, words string) {
	source, status := &image.Spec.Source, &image.Status
	current := status.ObservedGeneration >= image.Generation && status.Digest != ""
	switch {
	case source.Image != nil && current:
		return made, "tagged"
	case source.Image != nil:
		return pending, "waiting for the cluster to tag it"
	case !source.BuiltByCluster() && status.Digest != "":
		return made, "has its content"
	case !source.BuiltByCluster():
		return absent, image.Missing()
	}
	if building := meta.FindStatusCondition(status.Conditions, v1alpha1.ImageBuilding); building != nil && building.Status == metav1.ConditionTrue {
		return pending, building.Message
	}
	built := meta.FindStatusCondition(status.Conditions, v1alpha1.ImageBuilt)
	switch {
	case built == nil || built.ObservedGeneration < image.Generation || hash != "" && hash != status.ContextHash:
		return pending, fmt.Sprintf("the cluster builds it (%s)", source.Describe())
	case built.Status == metav1.ConditionTrue && current:
		return made, "built"
	case built.Reason == v1alpha1.ReasonBuildFailed, built.Reason == v1alpha1.ReasonBaseUnavailable:
		return failed, built.Message
	}
	return pending, built.Message
}
