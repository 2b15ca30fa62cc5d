package apiserver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/request"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"

	"lighter.dev/lighter/api/agentapi"
	"lighter.dev/lighter/api/v1alpha1"
)

// BuilderPicker chooses the node that builds an Image, or takes its content
// in. wantNode is the client's wish, or "". The error says why there is none.
type BuilderPicker interface {
	PickBuilder(ctx context.Context, image *v1alpha1.Image, wantNode string) (nodeName string, err error)
}

// HolderPicker chooses a node that holds an Image's content. The error says why
// there is none.
type HolderPicker interface {
	PickHolder(ctx context.Context, image *v1alpha1.Image) (nodeName string, err error)
}

// imageRoutes are the routes of an Image's subresources.
type imageRoutes struct {
	builders   BuilderPicker
	holders    HolderPicker
	pods       corev1client.PodsGetter
	authorizer authorizer.Authorizer
}

// build leads to a builder agent, by an upgraded connection.
func (r imageRoutes) build(ctx context.Context, image *v1alpha1.Image, options runtime.Object) (*question, error) {
	node, err := r.builder(ctx, image, options.(*v1alpha1.ImageBuildOptions).Node)
	if err != nil {
		return nil, err
	}
	return &question{node: node, path: "/build/" + image.Namespace + "/" + image.Name, upgrade: true}, nil
}

// takeContent leads an archive to a host that is fit to build.
func (r imageRoutes) takeContent(ctx context.Context, image *v1alpha1.Image, options runtime.Object) (*question, error) {
	if image.Spec.Source.Archive == nil {
		return nil, wrongSource(image, "archive")
	}
	node, err := r.builder(ctx, image, "")
	if err != nil {
		return nil, err
	}
	query := about(image, agentapi.ParamImage, image.Name)
	asked := options.(*v1alpha1.ImageContentOptions)
	if asked.Ref != "" {
		query.Set(agentapi.ParamRef, asked.Ref)
	}
	edits(asked.ImageEditOptions).AddTo(query)
	return &question{node: node, path: agentapi.PathImport, query: query}, nil
}

// giveContent asks for an archive with all of the image's names, by its digest: the
// agent may not have heard yet of a name that was just added.
func (r imageRoutes) giveContent(ctx context.Context, image *v1alpha1.Image, _ runtime.Object) (*question, error) {
	node, err := r.holder(ctx, image)
	if err != nil {
		return nil, err
	}
	query := about(image)
	for _, tag := range image.Spec.Tags {
		name, err := v1alpha1.NormalizeTag(tag)
		if err != nil {
			return nil, apierrors.NewInternalError(err) // the API has checked it
		}
		query.Add(agentapi.ParamRef, pinned(image, name))
	}
	return &question{node: node, path: agentapi.PathSave, query: query}, nil
}

func (r imageRoutes) details(ctx context.Context, image *v1alpha1.Image, _ runtime.Object) (*question, error) {
	node, err := r.holder(ctx, image)
	if err != nil {
		return nil, err
	}
	return &question{node: node, path: agentapi.PathInspect, query: about(image, agentapi.ParamRef, pinned(image, image.Spec.Tags[0]))}, nil
}

// push leaves the registry's credentials in the request's body.
func (r imageRoutes) push(ctx context.Context, image *v1alpha1.Image, options runtime.Object) (*question, error) {
	asked := options.(*v1alpha1.ImagePushOptions)
	ref, err := tagOf(image, asked.Ref, asked.To)
	if err != nil {
		return nil, err
	}
	node, err := r.holder(ctx, image)
	if err != nil {
		return nil, err
	}
	query := about(image, agentapi.ParamRef, pinned(image, ref), agentapi.ParamTo, cmp.Or(asked.To, ref))
	return &question{node: node, path: agentapi.PathPush, query: query}, nil
}

// commit leads to the container's host. What is in a container's file system,
// "exec" would show as well: it takes the same right.
func (r imageRoutes) commit(ctx context.Context, image *v1alpha1.Image, options runtime.Object) (*question, error) {
	source, asked := image.Spec.Source.Container, options.(*v1alpha1.ImageCommitOptions)
	if source == nil {
		return nil, wrongSource(image, "container")
	}
	if asked.Pod != "" && asked.Pod != source.Pod || asked.Container != "" && asked.Container != source.Container {
		return nil, apierrors.NewBadRequest(fmt.Sprintf(
			"image %s is of container %s/%s: change its spec.source.container before you commit another", image.Name, source.Pod, source.Container))
	}
	if err := r.mayExec(ctx, image.Namespace, source.Pod); err != nil {
		return nil, err
	}
	pod, err := r.pods.Pods(image.Namespace).Get(ctx, source.Pod, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	if pod.Spec.NodeName == "" {
		return nil, conflict(image, fmt.Sprintf("waits for pod %s, which is on no host yet: commit when it runs", pod.Name))
	}
	query := about(image, agentapi.ParamImage, image.Name, agentapi.ParamPod, source.Pod, agentapi.ParamContainer, source.Container)
	edits(asked.ImageEditOptions).AddTo(query)
	return &question{node: pod.Spec.NodeName, path: agentapi.PathCommit, query: query}, nil
}

func edits(asked v1alpha1.ImageEditOptions) agentapi.Edits {
	return agentapi.Edits{Author: asked.Author, Message: asked.Message, Changes: asked.Change}
}

// mayExec asks what the request's own check could not know: it was about an Image.
func (r imageRoutes) mayExec(ctx context.Context, namespace, pod string) error {
	user, ok := request.UserFrom(ctx)
	if !ok {
		return apierrors.NewInternalError(errors.New("the request has no user"))
	}
	decision, _, err := r.authorizer.Authorize(ctx, authorizer.AttributesRecord{
		User: user, Verb: "create", Namespace: namespace, APIVersion: "v1",
		Resource: "pods", Subresource: "exec", Name: pod, ResourceRequest: true,
	})
	switch {
	case decision == authorizer.DecisionAllow:
		return nil
	case err != nil:
		return apierrors.NewInternalError(err)
	}
	return apierrors.NewForbidden(corev1.Resource("pods/exec"), pod, fmt.Errorf(
		"who commits a container sees its files: that takes the right to create pods/exec in namespace %s", namespace))
}

func (r imageRoutes) builder(ctx context.Context, image *v1alpha1.Image, want string) (string, error) {
	node, err := r.builders.PickBuilder(ctx, image, want)
	if err != nil {
		return "", apierrors.NewServiceUnavailable(err.Error())
	}
	return node, nil
}

func (r imageRoutes) holder(ctx context.Context, image *v1alpha1.Image) (string, error) {
	if image.Status.Digest == "" {
		return "", conflict(image, image.Missing())
	}
	node, err := r.holders.PickHolder(ctx, image)
	if err != nil {
		return "", apierrors.NewServiceUnavailable(err.Error())
	}
	return node, nil
}

// wrongSource refuses content that an Image's spec says nothing of: the object
// would no longer tell where its content comes from.
func wrongSource(image *v1alpha1.Image, want string) error {
	return conflict(image, fmt.Sprintf("comes from %s, not from spec.source.%s: change that first, or use another name", image.Spec.Source.Describe(), want))
}

// conflict says why an Image cannot do what is asked of it, and what helps.
func conflict(image *v1alpha1.Image, why string) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusConflict, Reason: metav1.StatusReasonConflict,
		Details: &metav1.StatusDetails{Group: v1alpha1.GroupName, Kind: "images", Name: image.Name},
		Message: fmt.Sprintf("image %s %s", image.Name, why),
	}}
}

// about are the parameters of a question about an Image, and further ones in
// pairs of name and value.
func about(image *v1alpha1.Image, pairs ...string) url.Values {
	query := url.Values{agentapi.ParamNamespace: {image.Namespace}}
	for i := 0; i < len(pairs); i += 2 {
		query.Set(pairs[i], pairs[i+1])
	}
	return query
}

// pinned is one of an Image's names for exactly its content: another Image of
// the namespace may have been first to claim the name.
func pinned(image *v1alpha1.Image, tag string) string { return tag + "@" + image.Status.Digest }

// tagOf is the one of an Image's tags that a client means: the one it names, or
// the one that the result is to be called, or the first.
func tagOf(image *v1alpha1.Image, ref, to string) (string, error) {
	wanted, err := v1alpha1.NormalizeTag(cmp.Or(ref, to))
	for _, tag := range image.Spec.Tags {
		if name, tagErr := v1alpha1.NormalizeTag(tag); err == nil && tagErr == nil && name == wanted {
			return tag, nil
		}
	}
	if ref != "" {
		return "", apierrors.NewBadRequest(fmt.Sprintf("image %s is not called %s: its tags are %s", image.Name, ref, strings.Join(image.Spec.Tags, ", ")))
	}
	return image.Spec.Tags[0], nil
}
