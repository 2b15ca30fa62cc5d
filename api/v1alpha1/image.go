package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// +genclient
// +k8s:deepcopy-gen:interfaces=k8s.io/apimachinery/pkg/runtime.Object

// Image is a container image that the cluster builds or was given, and keeps:
// the declarative form of "docker build -t", "docker tag" and their kin. Every
// host can run it by any of spec.tags without a registry.
type Image struct {
	metav1.TypeMeta `json:",inline"`
	// metadata is the standard object's metadata.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec says where the image comes from and what it is called.
	Spec ImageSpec `json:"spec"`
	// status says what was built last and how the current build goes.
	// The agent that builds is its only writer; see package controller/image
	// for what is written where no agent builds.
	// +optional
	Status ImageStatus `json:"status,omitempty"`
}

// +k8s:deepcopy-gen:interfaces=k8s.io/apimachinery/pkg/runtime.Object

// ImageList is a list of Images.
type ImageList struct {
	metav1.TypeMeta `json:",inline"`
	// metadata is the standard list metadata.
	// +optional
	metav1.ListMeta `json:"metadata,omitempty"`

	// items are the Images.
	Items []Image `json:"items"`
}

// ImageSpec describes one image.
type ImageSpec struct {
	// source is where its content comes from.
	Source ImageSource `json:"source"`
	// dockerfile is the path of the Dockerfile inside the context, with
	// forward slashes. Defaults to "Dockerfile". It, target and args are for
	// sources that are built.
	// +optional
	Dockerfile string `json:"dockerfile,omitempty"`
	// target is the stage to build; the last stage if empty.
	// +optional
	Target string `json:"target,omitempty"`
	// args are the values of the Dockerfile's ARG instructions.
	// +optional
	Args map[string]string `json:"args,omitempty"`
	// tags are the names (Docker references without a digest) by which
	// containers refer to the result. A name without a tag means ":latest".
	// Defaults to "<metadata.name>:latest".
	// +optional
	// +listType=set
	Tags []string `json:"tags,omitempty"`
}

// ImageSource is a union: exactly one member is set. The first four are built
// with a Dockerfile. The last three record where an image came from that was
// made once, by a command, and cannot be made again from the object.
type ImageSource struct {
	// path is a folder on the machine of whoever applies the manifest,
	// relative to the manifest's own folder. The client sends its content
	// (only what changed since the last build) when it applies.
	// +optional
	Path string `json:"path,omitempty"`
	// git is a repository that the cluster clones and builds by itself.
	// +optional
	Git *GitSource `json:"git,omitempty"`
	// inline is the text of a Dockerfile that needs no files beside it.
	// +optional
	Inline string `json:"inline,omitempty"`
	// configMap is a ConfigMap of the same namespace whose keys are the files
	// of the build context. The image is built anew when it changes.
	// +optional
	ConfigMap *ConfigMapSource `json:"configMap,omitempty"`
	// image gives an image that exists another name ("lighter tag").
	// +optional
	Image *TagSource `json:"image,omitempty"`
	// archive was sent by a client ("lighter import", "lighter load").
	// +optional
	Archive *ArchiveSource `json:"archive,omitempty"`
	// container is one whose file system was kept ("lighter commit").
	// +optional
	Container *ContainerSource `json:"container,omitempty"`
}

// GitSource is a build context in a Git repository.
type GitSource struct {
	// url is that of the repository: https://, http:// or git://, or ssh:// if a
	// client lends its SSH agent ("lighter build --ssh"). It holds no password.
	URL string `json:"url"`
	// ref is a branch, a tag or a commit; the default branch if empty.
	// +optional
	Ref string `json:"ref,omitempty"`
	// path is the folder of the build context inside the repository.
	// +optional
	Path string `json:"path,omitempty"`
	// pollInterval is how often the cluster asks the repository what ref names. When
	// it is another commit, the image is built anew. At least 10s; it never asks if
	// unset, and not by ssh://, as it has no key.
	// +optional
	PollInterval *metav1.Duration `json:"pollInterval,omitempty"`
}

// ConfigMapSource is a build context in a ConfigMap.
type ConfigMapSource struct {
	// name is that of the ConfigMap.
	Name string `json:"name"`
}

// TagSource is an image of which the object is another name.
type TagSource struct {
	// ref is the name that was given, pinned by digest: "nginx:1.29@sha256:…".
	Ref string `json:"ref"`
}

// ArchiveSource is an archive that was sent by a client.
type ArchiveSource struct {
	// name is that of the file, for people to read.
	// +optional
	Name string `json:"name,omitempty"`
}

// ContainerSource is a container whose file system became the image.
type ContainerSource struct {
	// pod is metadata.name of the container's pod.
	Pod string `json:"pod"`
	// container is its name in that pod.
	Container string `json:"container"`
}

// ImageStatus is what the cluster observed.
type ImageStatus struct {
	// observedGeneration is the metadata.generation that digest was made from.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// digest is the manifest digest (OCI image-spec) of the last successful
	// build. It stays when a later build fails: the old version keeps serving.
	// +optional
	Digest string `json:"digest,omitempty"`
	// size is the sum of the compressed layer sizes of digest, in bytes.
	// +optional
	Size int64 `json:"size,omitempty"`
	// nodeName is the node that built digest and so holds its build cache.
	// +optional
	NodeName string `json:"nodeName,omitempty"`
	// builtAt is when digest was built.
	// +optional
	BuiltAt *metav1.Time `json:"builtAt,omitempty"`
	// contextHash tells apart versions of what spec.source.configMap names: it
	// is that of the files which the last build that ended was given, whether
	// or not it succeeded. For spec.source.git with a pollInterval it is the
	// commit that ref named when that build began. The image controller is its
	// only writer.
	// +optional
	ContextHash string `json:"contextHash,omitempty"`
	// conditions are Built (the last build succeeded) and Building (one runs now).
	// +optional
	// +patchMergeKey=type
	// +patchStrategy=merge
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty" patchStrategy:"merge" patchMergeKey:"type"`
}

const (
	// ImageBuilt is True when the last build that ended succeeded. When it is
	// False, its message holds the failing step and the end of its output.
	ImageBuilt = "Built"
	// ImageBuilding is True while an agent builds the image.
	ImageBuilding = "Building"

	// ReasonWaitingForContext: no client has sent the folder spec.source.path
	// yet, or spec.source.configMap does not exist.
	ReasonWaitingForContext = "WaitingForContext"
	// ReasonWaitingForContent: no command has made the content of an archive or
	// a container's image yet.
	ReasonWaitingForContent = "WaitingForContent"
	// ReasonWaitingForBuilder: the cluster is about to build.
	ReasonWaitingForBuilder = "WaitingForBuilder"
	// ReasonTagged: status.digest is that of spec.source.image.
	ReasonTagged = "Tagged"
	// ReasonBuildSucceeded: the last build produced status.digest.
	ReasonBuildSucceeded = "BuildSucceeded"
	// ReasonImported: status.digest came from an archive that a client sent.
	ReasonImported = "Imported"
	// ReasonCommitted: status.digest is the file system of a container.
	ReasonCommitted = "Committed"
	// ReasonBuildFailed: a step of the Dockerfile, an import or a commit failed.
	ReasonBuildFailed = "BuildFailed"
	// ReasonBaseUnavailable: an image that the Dockerfile builds on cannot be had. It
	// may be later, so a build by the cluster alone is tried again.
	ReasonBaseUnavailable = "BaseUnavailable"
	// ReasonBuildCancelled: the client or the agent went away in mid-build.
	ReasonBuildCancelled = "BuildCancelled"
	// ReasonBuildStarted: the build runs.
	ReasonBuildStarted = "BuildStarted"

	// DigestsAnnotation, on a pod or pod template, pins tags of cluster-built
	// images to digests: a JSON object from normalised reference to digest.
	// The deployment reconciler writes it, the agent obeys it, so that a pod
	// keeps its image over restarts and a rollback brings the old one back.
	DigestsAnnotation = GroupName + "/digests"
)
