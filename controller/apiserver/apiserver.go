package apiserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"runtime/debug"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"k8s.io/apimachinery/pkg/util/wait"
	genericapifilters "k8s.io/apiserver/pkg/endpoints/filters"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/storage/storagebackend"
	"k8s.io/apiserver/pkg/util/notfoundhandler"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	"k8s.io/kubernetes/pkg/controlplane"
	kubeletclient "k8s.io/kubernetes/pkg/kubelet/client"
	rbacrest "k8s.io/kubernetes/pkg/registry/rbac/rest"
	schedulingrest "k8s.io/kubernetes/pkg/registry/scheduling/rest"

	"lighter.dev/lighter/api/v1alpha1"
	"lighter.dev/lighter/controller/pki"
)

// shutdownTimeout is how long watches, which never end by themselves, may hold up
// a stop.
const shutdownTimeout = time.Second

// settled is how long after the start there is time to tidy up.
const settled = 5 * time.Second

// caPath is where the CA certificate can be had without credentials.
const caPath = "/cacerts"

// Config is what a Server needs.
type Config struct {
	// Etcd is where objects are stored.
	Etcd storagebackend.TransportConfig
	// NewClient makes clients of that etcd if it is in this process; nil if not.
	NewClient func() *clientv3.Client
	// Authority is the cluster's identity.
	Authority *pki.Authority
	// Bind is the address to listen on, all of them if nil, and Port the port;
	// or Listener is what to serve on.
	Bind     net.IP
	Port     int
	Listener net.Listener
	// Advertise is the address that agents and pods reach this server by.
	Advertise net.IP
	// ServiceCIDR is the range of service addresses; its first one is this server's.
	ServiceCIDR *net.IPNet
	// PodCIDR is handed to the agents.
	PodCIDR netip.Prefix
	// ClusterDomain is the DNS domain of services.
	ClusterDomain string
	// Builders chooses who builds an Image, Holders who is asked about its content.
	Builders BuilderPicker
	Holders  HolderPicker
	// Servers, if not nil, answers at ServersPath.
	Servers http.Handler
	Log     *slog.Logger
}

// Server is a Kubernetes API server.
type Server struct {
	cfg      Config
	instance *controlplane.Instance
	client   kubernetes.Interface
	ready    chan struct{}
	// fail ends Run with an error; Run sets it.
	fail context.CancelCauseFunc
}

// installScheme adds our kinds to the scheme of the built-in ones, which is a
// variable of the process.
var installScheme = sync.OnceValue(func() error {
	return errors.Join(v1alpha1.AddToScheme(legacyscheme.Scheme), v1alpha1.AddInternalToScheme(legacyscheme.Scheme))
})

// New assembles a server. Nothing is served before Run.
func New(ctx context.Context, cfg Config) (*Server, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if err := installScheme(); err != nil {
		return nil, fmt.Errorf("apiserver: scheme: %w", err)
	}
	s := &Server{cfg: cfg, ready: make(chan struct{})}
	if err := s.assemble(ctx); err != nil {
		return nil, fmt.Errorf("apiserver: %w", err)
	}
	return s, nil
}

func (s *Server) assemble(ctx context.Context) error {
	config, err := configure(ctx, s.cfg)
	if err != nil {
		return err
	}
	generic := config.ControlPlane.Generic
	// bootstrap does their work.
	generic.DisabledPostStartHooks.Insert(rbacrest.PostStartHookName, schedulingrest.PostStartHookName)
	generic.BuildHandlerChainFunc = withCA(s.cfg.Authority.PEM)
	if s.client, err = kubernetes.NewForConfig(generic.LoopbackClientConfig); err != nil {
		return err
	}
	agents, err := kubeletclient.NewNodeConnectionInfoGetter(s.client.CoreV1().Nodes(), config.Extra.KubeletClientConfig)
	if err != nil {
		return err
	}
	notFound := notfoundhandler.New(generic.Serializer, genericapifilters.NoMuxAndDiscoveryIncompleteKey)
	s.instance, err = config.Complete().New(genericapiserver.NewEmptyDelegateWithCustomHandler(notFound))
	if err != nil {
		return err
	}
	s.generic().ShutdownTimeout = shutdownTimeout
	routes := imageRoutes{builders: s.cfg.Builders, holders: s.cfg.Holders, pods: s.client.CoreV1(), authorizer: generic.Authorization.Authorizer}
	if err := s.instance.ControlPlane.InstallAPIs(ownProvider{agents: agents, routes: routes, containers: containerRoutes{s.client.CoreV1()}, log: s.cfg.Log}); err != nil {
		return err
	}
	if s.cfg.Servers != nil {
		s.mount(ServersPath, s.cfg.Servers)
	}
	newDocuments(s.generic().Handler, generic.OpenAPIConfig, generic.OpenAPIV3Config).install()
	t := newTenancy(s.client, s.Informers(), string(s.cfg.Authority.PEM), s.cfg.Log)
	return errors.Join(
		s.generic().AddPostStartHook("lighter-bootstrap", func(hook genericapiserver.PostStartHookContext) error {
			if err := s.bootstrap(hook); err != nil {
				// Returned from here, it would end the process without a clean stop.
				s.fail(startError{err})
				<-hook.Done()
			}
			return nil
		}),
		s.generic().AddPostStartHook("lighter-tenancy", func(hook genericapiserver.PostStartHookContext) error {
			go t.run(hook)
			return nil
		}),
	)
}

func (s *Server) generic() *genericapiserver.GenericAPIServer {
	return s.instance.ControlPlane.GenericAPIServer
}

// Client is a client with all rights that speaks to this server in process.
func (s *Server) Client() kubernetes.Interface { return s.client }

// LoopbackConfig is how to make further clients like Client.
func (s *Server) LoopbackConfig() *rest.Config {
	return rest.CopyConfig(s.generic().LoopbackClientConfig)
}

// Informers are shared by the server and every reconciler in the process. The
// server starts them; register handlers before Run.
func (s *Server) Informers() informers.SharedInformerFactory {
	return s.instance.ControlPlane.VersionedInformers
}

// Ready is closed when the server answers and all its start-up work is done.
func (s *Server) Ready() <-chan struct{} { return s.ready }

// Run serves until ctx ends, then lets requests under way finish.
func (s *Server) Run(ctx context.Context) error {
	ctx, s.fail = context.WithCancelCause(ctx)
	defer s.fail(nil)
	prepared := s.generic().PrepareRun()
	go s.awaitReady(ctx)
	err := prepared.RunWithContext(ctx)
	var failed startError
	if errors.As(context.Cause(ctx), &failed) {
		err = errors.Join(failed, err)
	}
	if err != nil {
		return fmt.Errorf("apiserver: %w", err)
	}
	return nil
}

// startError ends a server that could not finish its start.
type startError struct{ error }

func (e startError) Unwrap() error { return e.error }

// awaitReady asks the server itself: its start-up hooks, among them those that
// fill the caches of RBAC, have no common signal.
func (s *Server) awaitReady(ctx context.Context) {
	const pause = 10 * time.Millisecond
	err := wait.PollUntilContextCancel(ctx, pause, true, func(ctx context.Context) (bool, error) {
		return s.client.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error() == nil, nil
	})
	if err != nil {
		return
	}
	close(s.ready)
	// What it took to start is garbage now. The pause leaves the CPU to the hosts
	// that join at once.
	select {
	case <-ctx.Done():
	case <-time.After(settled):
		debug.FreeOSMemory()
	}
}

// withCA answers requests for the CA certificate before anything else looks at them.
func withCA(caPEM []byte) func(http.Handler, *genericapiserver.Config) http.Handler {
	return func(api http.Handler, config *genericapiserver.Config) http.Handler {
		chain := genericapiserver.DefaultBuildHandlerChain(api, config)
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != caPath {
				chain.ServeHTTP(w, r)
				return
			}
			w.Header().Set("Content-Type", "application/x-pem-file")
			// The client has gone if this fails.
			_, _ = w.Write(caPEM)
		})
	}
}
