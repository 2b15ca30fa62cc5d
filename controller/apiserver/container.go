package apiserver

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/url"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	kubeletclient "k8s.io/kubernetes/pkg/kubelet/client"

	"lighter.dev/lighter/api/agentapi"
	"lighter.dev/lighter/api/v1alpha1"
)

// containerREST is the resource "containers". Nothing is stored: its objects are the
// pods, and there is nothing to do with them but what its subresources do. They are
// not those of pods themselves, since that group is upstream's; nodes/proxy, which
// leads to the same answers, is a right over a whole host.
type containerREST struct{}

var (
	_ rest.Scoper               = containerREST{}
	_ rest.SingularNameProvider = containerREST{}
)

// New implements rest.Storage.
func (containerREST) New() runtime.Object { return &v1alpha1.ContainerOptions{} }

// Destroy implements rest.Storage.
func (containerREST) Destroy() {}

// NamespaceScoped implements rest.Scoper.
func (containerREST) NamespaceScoped() bool { return true }

// GetSingularName implements rest.SingularNameProvider.
func (containerREST) GetSingularName() string { return "container" }

// containerRoutes are the routes of what is below a container.
type containerRoutes struct{ pods corev1client.PodsGetter }

func (r containerRoutes) storage(agents kubeletclient.ConnectionInfoGetter, log *slog.Logger) map[string]rest.Storage {
	options := func() runtime.Object { return &v1alpha1.ContainerOptions{} }
	asks := func(method, path string) rest.Storage {
		return &agentREST[*corev1.Pod]{get: r.pod, agents: agents, kind: options, options: options, log: log,
			routes: map[string]route[*corev1.Pod]{method: toContainer(path)}}
	}
	const containers = agentapi.ResourceContainers
	return map[string]rest.Storage{
		containers: containerREST{},
		containers + "/" + agentapi.SubresourceTop:     asks(http.MethodGet, agentapi.PathTop),
		containers + "/" + agentapi.SubresourceChanges: asks(http.MethodGet, agentapi.PathChanges),
		containers + "/" + agentapi.SubresourceStats:   asks(http.MethodGet, agentapi.PathStats),
		containers + "/" + agentapi.SubresourceSignal:  asks(http.MethodPost, agentapi.PathSignal),
	}
}

// pod is the one whose containers are meant.
func (r containerRoutes) pod(ctx context.Context, name string) (*corev1.Pod, error) {
	namespace, ok := request.NamespaceFrom(ctx)
	if !ok {
		return nil, apierrors.NewInternalError(errors.New("the request has no namespace"))
	}
	return r.pods.Pods(namespace).Get(ctx, name, metav1.GetOptions{})
}

// toContainer leads to a path of the agent on the pod's host.
func toContainer(path string) route[*corev1.Pod] {
	return func(_ context.Context, pod *corev1.Pod, options runtime.Object) (*question, error) {
		if pod.Spec.NodeName == "" {
			return nil, apierrors.NewConflict(corev1.Resource("pods"), pod.Name, errors.New("it is on no host yet"))
		}
		asked := options.(*v1alpha1.ContainerOptions)
		query := url.Values{agentapi.ParamNamespace: {pod.Namespace}, agentapi.ParamPod: {pod.Name}}
		for param, value := range map[string]string{agentapi.ParamContainer: asked.Container, agentapi.ParamSignal: asked.Signal} {
			if value != "" {
				query.Set(param, value)
			}
		}
		return &question{node: pod.Spec.NodeName, path: path, query: query}, nil
	}
}
