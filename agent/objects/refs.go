package objects

import (
	corev1 "k8s.io/api/core/v1"
)

// Kind is what a Ref names.
type Kind string

// The kinds of objects that pods refer to by name.
const (
	ConfigMap Kind = "ConfigMap"
	Secret    Kind = "Secret"
)

// Ref names one object.
type Ref struct {
	Kind            Kind
	Namespace, Name string
}

// RefsOf lists the ConfigMaps and Secrets that a pod refers to: exactly those
// that the API server's node authorizer lets this node read.
func RefsOf(pod *corev1.Pod) []Ref {
	seen := map[Ref]bool{}
	add := func(kind Kind, name string) {
		if name != "" {
			seen[Ref{kind, pod.Namespace, name}] = true
		}
	}
	for _, s := range pod.Spec.ImagePullSecrets {
		add(Secret, s.Name)
	}
	for i := range pod.Spec.InitContainers {
		containerRefs(&pod.Spec.InitContainers[i], add)
	}
	for i := range pod.Spec.Containers {
		containerRefs(&pod.Spec.Containers[i], add)
	}
	for i := range pod.Spec.Volumes {
		volumeRefs(&pod.Spec.Volumes[i], add)
	}
	refs := make([]Ref, 0, len(seen))
	for r := range seen {
		refs = append(refs, r)
	}
	return refs
}

func containerRefs(c *corev1.Container, add func(Kind, string)) {
	for _, from := range c.EnvFrom {
		if from.ConfigMapRef != nil {
			add(ConfigMap, from.ConfigMapRef.Name)
		}
		if from.SecretRef != nil {
			add(Secret, from.SecretRef.Name)
		}
	}
	for _, v := range c.Env {
		if v.ValueFrom == nil {
			continue
		}
		if ref := v.ValueFrom.ConfigMapKeyRef; ref != nil {
			add(ConfigMap, ref.Name)
		}
		if ref := v.ValueFrom.SecretKeyRef; ref != nil {
			add(Secret, ref.Name)
		}
	}
}

func volumeRefs(v *corev1.Volume, add func(Kind, string)) {
	switch {
	case v.ConfigMap != nil:
		add(ConfigMap, v.ConfigMap.Name)
	case v.Secret != nil:
		add(Secret, v.Secret.SecretName)
	case v.Projected != nil:
		for _, s := range v.Projected.Sources {
			if s.ConfigMap != nil {
				add(ConfigMap, s.ConfigMap.Name)
			}
			if s.Secret != nil {
				add(Secret, s.Secret.Name)
			}
		}
	}
}
