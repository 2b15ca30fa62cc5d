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
	Ref              string `json:"ref,omitempty"`
	ImageEditOptions `json:",inline"`
}

// ImageEditOptions are what a command changes about the image that it makes.
type ImageEditOptions struct {
	// author is kept in the image's configuration.
	// +optional
	Author string `json:"author,omitempty"`
	// message is kept in its history.
	// +optional
	Message string `json:"message,omitempty"`
	// change is an instruction of a Dockerfile that concerns the configuration
	// alone: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME or
	// WORKDIR. It may be repeated.
	// +optional
	// +listType=atomic
	Change []string `json:"change,omitempty"`
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
	Container        string `json:"container,omitempty"`
	ImageEditOptions `json:",inline"`
}

// ContainerOptions are the query parameters of what is below the resource
// containers, whose objects are called as pods are: top, changes, stats, signal.
// +k8s:deepcopy-gen:interfaces=k8s.io/apimachinery/pkg/runtime.Object
type ContainerOptions struct {
	metav1.TypeMeta `json:",inline"`
	// container is one of the pod's; it may be left out if the pod has only one.
	// +optional
	Container string `json:"container,omitempty"`
	// signal is the name of the one to send.
	// +optional
	Signal string `json:"signal,omitempty"`
}

// addOptions registers how the options are read from a query.
func addOptions(scheme *runtime.Scheme) error {
	return errors.Join(
		fromQuery(scheme, func(query url.Values, o *ImageBuildOptions) { o.Node = query.Get("node") }),
		fromQuery(scheme, func(query url.Values, o *ImageContentOptions) {
			o.Ref, o.ImageEditOptions = query.Get("ref"), editOptions(query)
		}),
		fromQuery(scheme, func(query url.Values, o *ImagePushOptions) { o.Ref, o.To = query.Get("ref"), query.Get("to") }),
		fromQuery(scheme, func(query url.Values, o *ImageCommitOptions) {
			o.Pod, o.Container, o.ImageEditOptions = query.Get("pod"), query.Get("container"), editOptions(query)
		}),
		fromQuery(scheme, func(query url.Values, o *ContainerOptions) {
			o.Container, o.Signal = query.Get("container"), query.Get("signal")
		}),
	)
}

func editOptions(query url.Values) ImageEditOptions {
	return ImageEditOptions{Author: query.Get("author"), Message: query.Get("message"), Change: query["change"]}
}

func fromQuery[T any](scheme *runtime.Scheme, read func(url.Values, *T)) error {
	return scheme.AddConversionFunc((*url.Values)(nil), (*T)(nil), func(query, options any, _ conversion.Scope) error {
		read(*query.(*url.Values), options.(*T))
		return nil
	})
}
