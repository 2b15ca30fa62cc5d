package image

import (
	"errors"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	corev1 "k8s.io/api/core/v1"
)

// Request asks for an image to be present and unpacked.
type Request struct {
	// Namespace is that of the pod that asks: Image objects of it, and no other,
	// decide whether Ref means a build of the cluster. "" means none does.
	Namespace string
	// Ref is the name as the user wrote it: shop, shop:v1, host/shop@sha256:….
	Ref string
	// Pin, if set, is the digest that Ref has to mean (a cluster-built image).
	Pin digest.Digest
	// Policy is the pull policy; "" is defaulted as Kubernetes does.
	Policy corev1.PullPolicy
	// Auth are the registry credentials of the pod's imagePullSecrets, in order.
	Auth []Credential
	// Progress, if not nil, is called as bytes arrive. It must not block.
	Progress func(Progress)
}

// Credential is one entry of a kubernetes.io/dockerconfigjson secret.
type Credential struct {
	// Host is the registry (and path) prefix that the entry is for.
	Host                              string
	Username, Password, IdentityToken string
}

// Progress counts the bytes of all blobs of one image.
type Progress struct {
	Done, Total int64
	// Blob is the one that moved, "" if none did.
	Blob BlobProgress
}

// BlobProgress counts the bytes of one blob.
type BlobProgress struct {
	Digest      digest.Digest
	Done, Total int64
	// Present: it was here before.
	Present bool
}

// Image is an image that is present and unpacked on this host.
type Image struct {
	// Name is the normalised reference, Target the digest it resolved to
	// (an index or a manifest), Manifest the manifest for this platform.
	Name             string
	Target, Manifest digest.Digest
	Config           ocispec.Image
	// ChainID names the snapshot of the top layer (OCI image-spec).
	ChainID digest.Digest
	// Size is the sum of all blobs, LayerSize that of the compressed layers
	// alone, in bytes.
	Size, LayerSize int64
}

// The reasons a request fails, as Kubernetes shows them in a waiting container.
var (
	ErrNeverPull         = errors.New("ErrImageNeverPull")
	ErrInvalidName error = nameError{}
	ErrPull              = errors.New("ErrImagePull")
	// ErrNotBuilt: an Image object declares the name, but no build has succeeded yet.
	ErrNotBuilt = errors.New("ImageNotBuilt")
)

// nameError is an invalid argument in the sense of errdefs.
type nameError struct{}

func (nameError) Error() string { return "InvalidImageName" }

// InvalidParameter makes it of errdefs' kind.
func (nameError) InvalidParameter() {}

// User is a container of this host.
type User struct {
	// ID is what Prepare got.
	ID string
	// Pod is namespace/name of its pod, or "" if that is not known any more.
	Pod string
	// Running is false for one that has ended; it keeps its file system.
	Running bool
}

// String names the user for people.
func (u User) String() string {
	if u.Pod == "" {
		return "container " + u.ID
	}
	return "pod " + u.Pod
}
