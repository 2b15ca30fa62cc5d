package deployment

import (
	"encoding/json"
	"maps"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"lighter.dev/lighter/api/v1alpha1"
)

// observedAnnotation, on a Deployment, is a JSON object from normalised image
// reference to the digest that its Image had when this reconciler last looked
// ("" if it had none). An explicit pin counts as older than a digest that
// differs from the observed one.
const observedAnnotation = v1alpha1.GroupName + "/observed-digests"

// digests maps normalised image references to manifest digests.
type digests map[string]string

// parseDigests reads an annotation. One that cannot be read counts as empty:
// its author sees the result in the ReplicaSet's template.
func parseDigests(annotation string) digests {
	parsed := digests{}
	if annotation == "" || json.Unmarshal([]byte(annotation), &parsed) != nil {
		return digests{}
	}
	return parsed
}

// String is the annotation's value. JSON objects are written with sorted keys,
// so equal digests make equal templates.
func (d digests) String() string {
	if len(d) == 0 {
		return ""
	}
	encoded, err := json.Marshal(d)
	if err != nil {
		return "" // strings always marshal
	}
	return string(encoded)
}

// imageState is what the cluster knows about the Image behind one tag.
type imageState struct {
	found  bool   // an Image claims the tag
	digest string // "" until its first build succeeds
	advice string // what to do while there is no digest
}

// pinning is the decision about a Deployment's images.
type pinning struct {
	pins     digests  // for the annotation on the ReplicaSet's template
	observed digests  // for the annotation on the Deployment
	overtook bool     // explicit pins in the Deployment's template have to go
	explicit digests  // what is left of those
	waiting  []string // one sentence for each image without a digest
}

// pin decides, for each image that a template names, what digest to run.
func pin(d *appsv1.Deployment, lookup func(ref string) imageState) pinning {
	explicit := parseDigests(d.Spec.Template.Annotations[v1alpha1.DigestsAnnotation])
	before := parseDigests(d.Annotations[observedAnnotation])
	result := pinning{pins: digests{}, observed: digests{}, explicit: maps.Clone(explicit)}
	for _, ref := range imageRefs(&d.Spec.Template.Spec) {
		image := lookup(ref)
		seen, known := before[ref]
		wanted, pinned := explicit[ref]
		switch {
		case !image.found && !known:
			// No business of ours; an explicit pin stays as its author wrote it.
			if pinned {
				result.pins[ref] = wanted
			}
			continue
		case !image.found || image.digest == "":
			// The Image was deleted, or replaced by one that is not built:
			// what runs keeps its digest and is not restarted for that.
			result.observed[ref] = seen
		default:
			result.observed[ref] = image.digest
			if known && seen != image.digest {
				delete(result.explicit, ref)
				result.overtook = result.overtook || pinned
				pinned = false
			}
		}
		switch {
		case pinned:
			result.pins[ref] = wanted
		case result.observed[ref] != "":
			result.pins[ref] = result.observed[ref]
		case image.found:
			result.waiting = append(result.waiting, image.advice)
		}
	}
	return result
}

// imageRefs lists the normalised references of a pod's images, sorted, each
// once. References by digest need no pin and are left out.
func imageRefs(spec *corev1.PodSpec) []string {
	var refs []string
	for _, containers := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for i := range containers {
			if ref, err := v1alpha1.NormalizeTag(containers[i].Image); err == nil {
				refs = append(refs, ref)
			}
		}
	}
	slices.Sort(refs)
	return slices.Compact(refs)
}

// pinned returns a copy of d whose template carries exactly the given pins.
// From here on it is the wanted state; only its metadata and status are ever
// written back.
func pinned(d *appsv1.Deployment, pins digests) *appsv1.Deployment {
	effective := d.DeepCopy()
	setAnnotation(&effective.Spec.Template.Annotations, v1alpha1.DigestsAnnotation, pins.String())
	return effective
}

// setAnnotation sets a value, or removes the key if the value is empty. It
// never leaves an empty map where there was none, nor none where it was empty.
func setAnnotation(annotations *map[string]string, key, value string) {
	if value == "" {
		delete(*annotations, key)
		return
	}
	if *annotations == nil {
		*annotations = map[string]string{}
	}
	(*annotations)[key] = value
}
