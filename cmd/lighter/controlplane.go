package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/kubernetes/pkg/controller/bootstrap"
	"k8s.io/kubernetes/pkg/controller/clusterroleaggregation"

	"lighter.dev/lighter/api/client/clientset"
	lighterinformers "lighter.dev/lighter/api/client/informers"
	"lighter.dev/lighter/api/v1alpha1"
	"lighter.dev/lighter/cmd/lighter/token"
	"lighter.dev/lighter/controller/apiserver"
	"lighter.dev/lighter/controller/image"
	"lighter.dev/lighter/controller/lifecycle"
	"lighter.dev/lighter/controller/network"
	"lighter.dev/lighter/controller/pki"
	"lighter.dev/lighter/controller/scheduler"
	"lighter.dev/lighter/controller/servers"
	"lighter.dev/lighter/controller/store"
	"lighter.dev/lighter/controller/workload/deployment"
	"lighter.dev/lighter/controller/workload/replicaset"
)

// nodeCIDRBits is the size of each node's part of the pod network: 253 pods.
const nodeCIDRBits = 24

// runner is a reconciler: it works until ctx ends.
type runner interface {
	Run(ctx context.Context) error
}

// controlPlane is etcd, the API server and the reconcilers in one process. All but
// settings and log are there once it runs.
type controlPlane struct {
	settings  serverSettings
	log       *slog.Logger
	authority *pki.Authority
	store     *store.Store
	api       *apiserver.Server
	clients   planeClients
	own       lighterinformers.SharedInformerFactory
	hosts     imageHosts
	next      *term // of leadership, ready to begin

	assembled, ready chan struct{}
}

// planeClients speak to the API server of this process.
type planeClients struct {
	own     clientset.Interface
	objects metadata.Interface
}

// imageHosts breaks a circle: the API server asks the image reconciler who builds
// or holds an image, and the reconciler is a client of the API server. It is
// complete before the server runs. Every server asks its own reconciler, of its
// present or next term; to answer, that one need not run.
type imageHosts struct {
	atomic.Pointer[image.Controller]
}

// PickBuilder implements apiserver.BuilderPicker.
func (h *imageHosts) PickBuilder(ctx context.Context, image *v1alpha1.Image, wantNode string) (string, error) {
	return h.Load().PickBuilder(ctx, image, wantNode)
}

// PickHolder implements apiserver.HolderPicker.
func (h *imageHosts) PickHolder(ctx context.Context, image *v1alpha1.Image) (string, error) {
	return h.Load().PickHolder(ctx, image)
}

func newControlPlane(settings serverSettings, log *slog.Logger) *controlPlane {
	return &controlPlane{settings: settings, log: log, assembled: make(chan struct{}), ready: make(chan struct{})}
}

// open joins other servers if it has to, starts etcd and assembles the rest.
func (p *controlPlane) open(ctx context.Context) error {
	for {
		members, err := p.join(ctx)
		if err != nil {
			return err
		}
		err = p.openStore(ctx, members)
		if err == nil {
			break
		}
		if !errors.Is(err, store.ErrMembersChanged) {
			return err
		}
		p.log.Info("joining the other servers once more", "why", err)
	}
	err := p.assemble(ctx)
	if err == nil {
		// Now that nothing here can fail any more, this server may decide with others.
		err = p.store.Promotion(ctx)
	}
	if err != nil {
		return errors.Join(err, p.store.Close())
	}
	close(p.assembled)
	return nil
}

func (p *controlPlane) openStore(ctx context.Context, members []store.Member) error {
	var err error
	s, folders := p.settings, p.settings.folders()
	p.authority, err = pki.Open(pki.Config{Dir: folders.PKI, Names: s.names, IPs: s.ips, Log: p.log.With("part", "pki")})
	if err != nil {
		return err
	}
	p.store, err = store.Start(ctx, store.Config{
		Dir: folders.Store, Endpoints: s.etcd.endpoints,
		TLS:  store.TLS{CAFile: s.etcd.caFile, CertFile: s.etcd.certFile, KeyFile: s.etcd.keyFile},
		Name: s.name, Peer: s.peer(), Join: members,
		ClusterID: p.authority.ClusterID(), Log: p.log.With("part", "store"),
	})
	return err
}

func (p *controlPlane) assemble(ctx context.Context) error {
	var err error
	p.api, err = apiserver.New(ctx, apiserver.Config{
		Etcd: p.store.Transport(), NewClient: p.store.InProcess(), Authority: p.authority,
		Bind: p.settings.bind.AsSlice(), Port: p.settings.port, Advertise: p.settings.advertise.AsSlice(),
		ServiceCIDR: p.settings.serviceCIDR, PodCIDR: p.settings.clusterCIDR, ClusterDomain: p.settings.domain,
		Builders: &p.hosts, Holders: &p.hosts, Servers: p.serversHandler(), Log: p.log.With("part", "apiserver"),
	})
	if err != nil {
		return err
	}
	config := p.api.LoopbackConfig()
	ours := rest.CopyConfig(config)
	ours.ContentType = runtime.ContentTypeJSON // our kind has no protobuf form
	if p.clients.own, err = clientset.NewForConfig(ours); err != nil {
		return err
	}
	if p.clients.objects, err = metadata.NewForConfig(config); err != nil {
		return err
	}
	p.own = lighterinformers.NewSharedInformerFactory(p.clients.own, 0)
	p.next, err = p.newTerm(ctx)
	return err
}

// newToken lets the agent in this process join like any other; it has no more
// rights than any other.
func (p *controlPlane) newToken(ctx context.Context) (string, error) {
	select {
	case <-p.ready:
	case <-ctx.Done():
		return "", ctx.Err()
	}
	return token.Create(ctx, p.api.Client(), p.authority.PEM, token.Options{TTL: time.Minute, Description: "the server's own agent"})
}

// settle returns when the agent beside the control plane may start: after it, so
// that they do not slow each other down, but soon if it has to wait for other
// servers, as the containers of this host do not.
func (p *controlPlane) settle(ctx context.Context) {
	const patience = 2 * time.Second
	select {
	case <-p.assembled:
	case <-time.After(patience):
	case <-ctx.Done():
	}
}

// Ready is closed when the API can be used.
func (p *controlPlane) Ready() <-chan struct{} { return p.ready }

// Run works until ctx ends or a part fails. The reconcilers stop first, etcd last.
func (p *controlPlane) Run(ctx context.Context) (err error) {
	if err := p.open(ctx); err != nil {
		if ctx.Err() != nil && errors.Is(err, context.Canceled) {
			return nil // stopped while it waited for other servers
		}
		return err
	}
	defer func() { err = errors.Join(err, p.store.Close()) }()
	serving, stopServing := context.WithCancel(context.WithoutCancel(ctx))
	defer stopServing()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return p.api.Run(serving) })
	group.Go(func() error {
		defer stopServing()
		return p.reconcile(ctx)
	})
	group.Go(func() error { return p.authority.Run(ctx) })
	group.Go(func() error {
		select {
		case err := <-p.store.Failed():
			return fmt.Errorf("etcd has stopped: %w", err)
		case <-ctx.Done():
			return nil
		}
	})
	return group.Wait()
}

// reconcile runs the reconcilers once the API answers.
func (p *controlPlane) reconcile(ctx context.Context) error {
	select {
	case <-p.api.Ready():
	case <-ctx.Done():
		return nil
	}
	server := "https://127.0.0.1:" + fmt.Sprint(p.settings.port)
	if err := p.authority.WriteKubeconfig(filepath.Join(p.settings.dataDir, "admin.kubeconfig"), server); err != nil {
		return err
	}
	close(p.ready)
	p.own.Start(ctx.Done())
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return p.introduce(ctx) })
	group.Go(func() error { return p.lead(ctx) })
	err := group.Wait()
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// reconcilers collects the reconcilers of one term, and the errors of making them.
type reconcilers struct {
	plane     *controlPlane
	ctx       context.Context
	client    kubernetes.Interface
	informers informers.SharedInformerFactory
	own       lighterinformers.SharedInformerFactory
	runners   []runner
	errs      []error
}

// add takes the result of a constructor.
func add[T runner](w *reconcilers, r T, err error) T {
	if err != nil {
		w.errs = append(w.errs, err)
	} else {
		w.runners = append(w.runners, r)
	}
	return r
}

func (w *reconcilers) log(part string) *slog.Logger { return w.plane.log.With("part", part) }

func (w *reconcilers) images() {
	const name = "image-controller"
	c, err := image.New(image.Config{
		Client: w.plane.clients.own, Core: w.client, Build: clusterBuild(w.plane.api.LoopbackConfig(), w.client), Commit: image.RemoteCommit,
		Informers: w.informers, LighterInformers: w.own,
		Recorder: newRecorder(w.ctx, w.client, name), Log: w.log(name),
	})
	if add(w, c, err); err == nil {
		w.plane.hosts.Store(c)
	}
}

func (w *reconcilers) workloads() {
	d, err := deployment.New(deployment.Config{
		Client: w.client, Informers: w.informers, LighterInformers: w.own,
		Recorder: newRecorder(w.ctx, w.client, "deployment-controller"), Log: w.log("deployment-controller"),
	})
	add(w, d, err)
	r, err := replicaset.New(replicaset.Config{
		Client: w.client, Informers: w.informers,
		Recorder: newRecorder(w.ctx, w.client, "replicaset-controller"), Log: w.log("replicaset-controller"),
	})
	add(w, r, err)
	s, err := scheduler.New(scheduler.Config{
		Client: w.client, Informers: w.informers,
		Recorder: newRecorder(w.ctx, w.client, "default-scheduler"), Log: w.log("scheduler"),
	})
	add(w, s, err)
}

func (w *reconcilers) network() {
	deps := network.Deps{
		Client: w.client, Informers: w.informers,
		Recorder: newRecorder(w.ctx, w.client, "network-controller"), Log: w.log("network-controller"),
	}
	slices, err := network.NewEndpointSlices(deps)
	add(w, slices, err)
	endpoints, err := network.NewEndpoints(deps)
	add(w, endpoints, err)
	cidrs, err := network.NewPodCIDRs(deps, w.plane.settings.clusterCIDR, nodeCIDRBits)
	add(w, cidrs, err)
}

func (w *reconcilers) lifecycle() {
	objects := w.plane.clients.objects
	deps := lifecycle.Deps{
		Client: w.client, Informers: w.informers,
		Recorder: newRecorder(w.ctx, w.client, "node-controller"), Log: w.log("lifecycle"),
	}
	nodes, err := lifecycle.NewNodes(deps, lifecycle.NodesConfig{})
	add(w, nodes, err)
	pods, err := lifecycle.NewPodGC(deps, lifecycle.PodGCConfig{})
	add(w, pods, err)
	namespaces, err := lifecycle.NewNamespaces(deps, objects, w.client.Discovery())
	add(w, namespaces, err)
	add(w, lifecycle.NewCollector(deps, objects, w.client.Discovery(), w.cached()), nil)
	roles, err := servers.NewRoles(w.client, w.informers.Core().V1().Nodes(), w.plane.store.Servers, w.log("roles"))
	add(w, roles, err)
	signer, err := pki.NewSigner(w.plane.authority.CA, w.client, w.informers, w.log("signer"))
	add(w, signer, err)
}

// upstream are two small controllers of Kubernetes that fit as they are: one
// fills the aggregated roles view, edit and admin, the other removes expired
// join tokens.
func (w *reconcilers) upstream() {
	const workers = 1
	roles := clusterroleaggregation.NewClusterRoleAggregation(w.informers.Rbac().V1().ClusterRoles(), w.client.RbacV1())
	add(w, runnerFunc(func(ctx context.Context) { roles.Run(ctx, workers) }), nil)
	tokens, err := bootstrap.NewTokenCleaner(w.client, w.informers.Core().V1().Secrets(), bootstrap.DefaultTokenCleanerOptions())
	add(w, runnerFunc(func(ctx context.Context) { tokens.Run(ctx) }), err)
}

// runnerFunc is a runner that cannot fail.
type runnerFunc func(ctx context.Context)

func (f runnerFunc) Run(ctx context.Context) error {
	f(ctx)
	return nil
}

// cached are the kinds whose informers exist anyway, so that garbage collection
// does not keep a second cache of them.
func (w *reconcilers) cached() map[schema.GroupVersionResource]cache.SharedIndexInformer {
	core, apps := w.informers.Core().V1(), w.informers.Apps().V1()
	return map[schema.GroupVersionResource]cache.SharedIndexInformer{
		{Version: "v1", Resource: "namespaces"}:                                core.Namespaces().Informer(),
		{Version: "v1", Resource: "nodes"}:                                     core.Nodes().Informer(),
		{Version: "v1", Resource: "pods"}:                                      core.Pods().Informer(),
		{Version: "v1", Resource: "services"}:                                  core.Services().Informer(),
		{Version: "v1", Resource: "endpoints"}:                                 core.Endpoints().Informer(),
		{Version: "v1", Resource: "serviceaccounts"}:                           core.ServiceAccounts().Informer(),
		{Group: "apps", Version: "v1", Resource: "deployments"}:                apps.Deployments().Informer(),
		{Group: "apps", Version: "v1", Resource: "replicasets"}:                apps.ReplicaSets().Informer(),
		{Group: "coordination.k8s.io", Version: "v1", Resource: "leases"}:      w.informers.Coordination().V1().Leases().Informer(),
		{Group: "discovery.k8s.io", Version: "v1", Resource: "endpointslices"}: w.informers.Discovery().V1().EndpointSlices().Informer(),
		v1alpha1.SchemeGroupVersion.WithResource("images"):                     w.own.Lighter().V1alpha1().Images().Informer(),
	}
}
