package v1alpha1

import (
	"errors"
	"net/url"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/conversion"
	"k8s.io/apimachinery/pkg/runtime"
)

// ImageBuildOptions are the query parameters of the subresource images/build:
// a connection that upgrades to a BuildKit session and control stream.
// +k8s:deepcopy-gen:interfaces=k8s.io/apimachinery/pkg/runtime.Object
type ImageBuildOptions struct {
	metav1.TypeMeta `json:",inline"`
	// node asks for one builder by node name; the cluster chooses if empty.
	// +optional
	Node string `json:"node,omitempty"`
}

// ImageContentOptions are the query parameters of the subresource
// images/content: POST sends an archive, GET returns one.
// +k8s:deepcopy-gen:interfaces=k8s.io/apimachinery/pkg/runtime.Object
type ImageContentOptions struct {
	metav1.TypeMeta `json:",inline"`
	// ref chooses one image of an archive that holds several.
	// +optional
	Ref string `json:"ref,omitempty"`
}

// ImagePushOptions are the query parameters of the subresource images/push.
// +k8s:deepcopy-gen:interfaces=k8s.io/apimachinery/pkg/runtime.Object
type ImagePushOptions struct {
	metav1.TypeMeta `json:",inline"`
	// ref is the one of spec.tags to push; the first if empty.
	// +optional
	Ref string `json:"ref,omitempty"`
	// to is the name in the registry; ref if empty.
	// +optional
	To string `json:"to,omitempty"`
}

// ImageCommitOptions are the query parameters of the subresource images/commit.
// Both default to what spec.source.container says, and may not differ from it.
// +k8s:deepcopy-gen:interfaces=k8s.io/apimachinery/pkg/runtime.Object
type ImageCommitOptions struct {
	metav1.TypeMeta `json:",inline"`
	// pod is metadata.name of the container's pod.
	// +optional
	Pod string `json:"pod,omitempty"`
	// container is its name in that pod.
	// +optional
	Container string `json:"container,omitempty"`
}

// addOptions registers how the options are read from a query.
func addOptions(scheme *runtime.Scheme) error {
	return errors.Join(
		fromQuery(scheme, func(query url.Values, o *ImageBuildOptions) { o.Node = query.Get("node") }),
		fromQuery(scheme, func(query url.Values, o *ImageContentOptions) { o.Ref = query.Get("ref") }),
		fromQuery(scheme, func(query url.Values, o *ImagePushOptions) { o.Ref, o.To = query.Get("ref"), query.Get("to") }),
		fromQuery(scheme, func(query url.Values, o *ImageCommitOptions) {
			o.Pod, o.Container = query.Get("pod"), query.Get("container")
		}),
	)
}

func fromQuery[T any](scheme *runtime.Scheme, read func(url.Values, *T)) error {
	return scheme.AddConversionFunc((*url.Values)(nil), (*T)(nil), func(query, options any, _ conversion.Scope) error {
		read(*query.(*url.Values), options.(*T))
		return nil
	})
}
