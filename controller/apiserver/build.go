package apiserver

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/proxy"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"
	kubeletclient "k8s.io/kubernetes/pkg/kubelet/client"

	"lighter.dev/lighter/api/v1alpha1"
)

// BuilderPicker chooses the node that builds an Image. wantNode is the client's
// wish, or "". The error says why there is none.
type BuilderPicker interface {
	PickBuilder(ctx context.Context, image *v1alpha1.Image, wantNode string) (nodeName string, err error)
}

// buildREST is the subresource images/build. A client that may "create" it gets
// its connection, upgraded, piped to /build/<namespace>/<name> of an agent. Who
// may do what with the Image is decided here; the agent trusts this server only.
type buildREST struct {
	images   *genericregistry.Store
	builders BuilderPicker
	agents   kubeletclient.ConnectionInfoGetter
}

var _ rest.Connecter = (*buildREST)(nil)

func (*buildREST) New() runtime.Object { return &v1alpha1.ImageBuildOptions{} }

// Destroy leaves the shared store to imageREST.
func (*buildREST) Destroy() {}

func (*buildREST) NewConnectOptions() (runtime.Object, bool, string) {
	return &v1alpha1.ImageBuildOptions{}, false, ""
}

func (*buildREST) ConnectMethods() []string { return []string{http.MethodPost} }

func (r *buildREST) Connect(ctx context.Context, name string, options runtime.Object, responder rest.Responder) (http.Handler, error) {
	opts, ok := options.(*v1alpha1.ImageBuildOptions)
	if !ok {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("unexpected options %T", options))
	}
	obj, err := r.images.Get(ctx, name, &metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	image := obj.(*v1alpha1.Image)
	node, err := r.builders.PickBuilder(ctx, image, opts.Node)
	if err != nil {
		return nil, apierrors.NewServiceUnavailable(fmt.Sprintf("no host can build image %s/%s: %v", image.Namespace, name, err))
	}
	agent, err := r.agents.GetConnectionInfo(ctx, types.NodeName(node))
	if err != nil {
		return nil, apierrors.NewServiceUnavailable(fmt.Sprintf("builder %s: %v", node, err))
	}
	location := &url.URL{
		Scheme: agent.Scheme, Host: net.JoinHostPort(agent.Hostname, agent.Port),
		Path: "/build/" + image.Namespace + "/" + name,
	}
	return proxy.NewUpgradeAwareHandler(location, agent.Transport, false, true, builderLost{responder, node}), nil
}

// builderLost answers for a builder that could not be reached: it restarts, or it
// is gone and its Node does not say so yet. Either passes within seconds, so the
// client is told to come back.
type builderLost struct {
	responder rest.Responder
	node      string
}

func (b builderLost) Error(_ http.ResponseWriter, _ *http.Request, err error) {
	status := apierrors.NewServiceUnavailable(fmt.Sprintf("builder %s cannot be reached: %v", b.node, err))
	status.ErrStatus.Details = &metav1.StatusDetails{RetryAfterSeconds: 1}
	b.responder.Error(status)
}
