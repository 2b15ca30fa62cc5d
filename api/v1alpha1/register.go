package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupName is the API group of Lighter's own kinds.
const GroupName = "lighter.dev"

var (
	// SchemeGroupVersion is lighter.dev/v1alpha1.
	SchemeGroupVersion = schema.GroupVersion{Group: GroupName, Version: "v1alpha1"}
	// InternalGroupVersion is the hub version that k8s.io/apiserver decodes into.
	InternalGroupVersion = schema.GroupVersion{Group: GroupName, Version: runtime.APIVersionInternal}

	// SchemeBuilder collects what a client needs: the types and their defaults.
	SchemeBuilder = runtime.NewSchemeBuilder(addKnownTypes, addOptions, RegisterDefaults)
	// AddToScheme adds the client-side view of the group to a scheme.
	AddToScheme = SchemeBuilder.AddToScheme
)

// Resource qualifies a resource name with the group lighter.dev.
func Resource(resource string) schema.GroupResource {
	return SchemeGroupVersion.WithResource(resource).GroupResource()
}

func kinds() []runtime.Object {
	return []runtime.Object{
		&Image{}, &ImageList{},
		&ImageBuildOptions{}, &ImageContentOptions{}, &ImagePushOptions{}, &ImageCommitOptions{},
		&ContainerOptions{},
	}
}

func addKnownTypes(scheme *runtime.Scheme) error {
	scheme.AddKnownTypes(SchemeGroupVersion, kinds()...)
	metav1.AddToGroupVersion(scheme, SchemeGroupVersion)
	return nil
}

// AddInternalToScheme registers the same Go types as the hub version, which
// only the API server needs. Conversion between the two is then the identity.
func AddInternalToScheme(scheme *runtime.Scheme) error {
	scheme.AddKnownTypes(InternalGroupVersion, kinds()...)
	return scheme.SetVersionPriority(SchemeGroupVersion)
}
