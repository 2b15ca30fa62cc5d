package v1alpha1

import (
	"k8s.io/apimachinery/pkg/runtime"
)

// DefaultDockerfile is where a build looks for its Dockerfile, as Docker does.
const DefaultDockerfile = "Dockerfile"

// RegisterDefaults tells the scheme how to default the group's kinds.
func RegisterDefaults(scheme *runtime.Scheme) error {
	scheme.AddTypeDefaultingFunc(&Image{}, func(obj any) { SetImageDefaults(obj.(*Image)) })
	scheme.AddTypeDefaultingFunc(&ImageList{}, func(obj any) {
		list := obj.(*ImageList)
		for i := range list.Items {
			SetImageDefaults(&list.Items[i])
		}
	})
	return nil
}

// SetImageDefaults fills the fields of an Image that its author left out.
// Tags wait for a name: with metadata.generateName there is none yet.
func SetImageDefaults(image *Image) {
	if image.Spec.Dockerfile == "" && image.Spec.Source.HasDockerfile() {
		image.Spec.Dockerfile = DefaultDockerfile
	}
	if len(image.Spec.Tags) == 0 && image.Name != "" {
		image.Spec.Tags = []string{image.Name + ":latest"}
	}
}
