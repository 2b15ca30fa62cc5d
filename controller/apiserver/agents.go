package apiserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/proxy"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
	kubeletclient "k8s.io/kubernetes/pkg/kubelet/client"

	"lighter.dev/lighter/api/v1alpha1"
)

// agentREST is a subresource that an agent answers. Who may do what with the object
// is decided here; agents trust this server only, and so it says all that they are
// asked: nothing of the client's URL reaches them.
type agentREST[T runtime.Object] struct {
	// get finds the object, in the namespace of the context.
	get    func(ctx context.Context, name string) (T, error)
	agents kubeletclient.ConnectionInfoGetter
	// kind makes what discovery names as the subresource's kind.
	kind func() runtime.Object
	// options makes what the query is read into; nil if there is nothing to read.
	options func() runtime.Object
	// routes are by HTTP method.
	routes map[string]route[T]
	log    *slog.Logger
}

// route decides which agent is asked what. options are those of the subresource.
type route[T runtime.Object] func(ctx context.Context, object T, options runtime.Object) (*question, error)

// question is a request to an agent.
type question struct {
	node  string
	path  string
	query url.Values
	// upgrade: the connection becomes the client's own.
	upgrade bool
}

var (
	_ rest.Connecter = (*agentREST[*v1alpha1.Image])(nil)
	_ rest.Connecter = (*agentREST[*corev1.Pod])(nil)
)

// New implements rest.Storage.
func (r *agentREST[T]) New() runtime.Object {
	if r.options == nil {
		return r.kind()
	}
	return r.options()
}

// Destroy leaves a shared store to its owner.
func (*agentREST[T]) Destroy() {}

// NewConnectOptions implements rest.Connecter: there is no path below.
func (r *agentREST[T]) NewConnectOptions() (options runtime.Object, subpath bool, key string) {
	if r.options == nil {
		return nil, false, ""
	}
	return r.options(), false, ""
}

// ConnectMethods implements rest.Connecter. GET needs the right to "get" the
// subresource, POST to "create" it.
func (r *agentREST[T]) ConnectMethods() []string { return slices.Sorted(maps.Keys(r.routes)) }

// Connect implements rest.Connecter.
func (r *agentREST[T]) Connect(ctx context.Context, name string, options runtime.Object, responder rest.Responder) (http.Handler, error) {
	object, err := r.get(ctx, name)
	if err != nil {
		return nil, err
	}
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		asked, err := r.routes[req.Method](req.Context(), object, options)
		if err != nil {
			responder.Error(err)
			return
		}
		to, err := r.agents.GetConnectionInfo(req.Context(), types.NodeName(asked.node))
		if err != nil {
			responder.Error(apierrors.NewServiceUnavailable(fmt.Sprintf("host %s: %v", asked.node, err)))
			return
		}
		r.pass(asked, to, agentLost{responder, asked.node}).ServeHTTP(w, req)
	}), nil
}

// pass makes the proxy for one request.
func (r *agentREST[T]) pass(asked *question, to *kubeletclient.ConnectionInfo, lost agentLost) http.Handler {
	location := &url.URL{
		Scheme: to.Scheme, Host: net.JoinHostPort(to.Hostname, to.Port),
		Path: asked.path, RawQuery: asked.query.Encode(),
	}
	if asked.upgrade {
		return proxy.NewUpgradeAwareHandler(location, to.Transport, false, true, lost)
	}
	// Upstream's handler would give the agent the client's query.
	return &httputil.ReverseProxy{
		Transport: to.Transport,
		Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.URL, p.Out.Host = location, ""
		},
		FlushInterval: -1, // a line of progress is news
		ErrorHandler:  lost.Error,
		ErrorLog:      slog.NewLogLogger(r.log.Handler(), slog.LevelDebug),
	}
}

// agentLost answers for an agent that could not be reached: it restarts, or it
// is gone and its Node does not say so yet. Either passes within seconds, so the
// client is told to come back, unless it has sent something that it may not have
// a second time.
type agentLost struct {
	responder rest.Responder
	node      string
}

// Error implements proxy.ErrorResponder.
func (a agentLost) Error(_ http.ResponseWriter, r *http.Request, err error) {
	status := apierrors.NewServiceUnavailable(fmt.Sprintf("the agent of host %s cannot be reached: %v", a.node, err))
	var dial *net.OpError
	if r.ContentLength == 0 || errors.As(err, &dial) && dial.Op == "dial" {
		status.ErrStatus.Details = &metav1.StatusDetails{RetryAfterSeconds: 1}
	}
	a.responder.Error(status)
}

// agentSubresources are those of agentREST that last as long as their work
// takes: a build, an archive on its way.
var agentSubresources = []string{"build", "commit", "content", "push"}

// untimed exempts them from the time and the number that other requests are
// limited to.
func untimed(others request.LongRunningRequestCheck) request.LongRunningRequestCheck {
	return func(r *http.Request, info *request.RequestInfo) bool {
		return others(r, info) ||
			info.IsResourceRequest && info.APIGroup == v1alpha1.GroupName && slices.Contains(agentSubresources, info.Subresource)
	}
}
