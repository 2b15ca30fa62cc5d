package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
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

// controlPlane is etcd, the API server and the reconcilers in one process.
type controlPlane struct {
	settings  serverSettings
	log       *slog.Logger
	authority *pki.Authority
	store     *store.Store
	api       *apiserver.Server
	own       lighterinformers.SharedInformerFactory
	runners   []runner
}

// imageHosts breaks a circle: the API server asks the image reconciler who builds
// or holds an image, and the reconciler is a client of the API server. It is
// complete before the server runs.
type imageHosts struct{ *image.Controller }

// newControlPlane starts etcd and assembles the rest.
func newControlPlane(ctx context.Context, settings serverSettings, log *slog.Logger) (*controlPlane, error) {
	p := &controlPlane{settings: settings, log: log}
	var err error
	p.authority, err = pki.Open(pki.Config{
		Dir: filepath.Join(settings.dataDir, "pki"), Names: settings.names, IPs: settings.ips, Log: log.With("part", "pki"),
	})
	if err != nil {
		return nil, err
	}
	p.store, err = store.Start(ctx, store.Config{
		Dir: filepath.Join(settings.dataDir, "etcd"), Endpoints: settings.etcd.endpoints,
		TLS:       store.TLS{CAFile: settings.etcd.caFile, CertFile: settings.etcd.certFile, KeyFile: settings.etcd.keyFile},
		ClusterID: p.authority.ClusterID(), Log: log.With("part", "store"),
	})
	if err != nil {
		return nil, err
	}
	if err := p.assemble(ctx); err != nil {
		return nil, errors.Join(err, p.store.Close())
	}
	return p, nil
}

func (p *controlPlane) assemble(ctx context.Context) error {
	hosts := &imageHosts{}
	var err error
	p.api, err = apiserver.New(ctx, apiserver.Config{
		Etcd: p.store.Transport(), NewClient: p.store.InProcess(), Authority: p.authority,
		Bind: p.settings.bind.AsSlice(), Port: p.settings.port, Advertise: p.settings.advertise.AsSlice(),
		ServiceCIDR: p.settings.serviceCIDR, PodCIDR: p.settings.clusterCIDR, ClusterDomain: p.settings.domain,
		Builders: hosts, Holders: hosts, Log: p.log.With("part", "apiserver"),
	})
	if err != nil {
		return err
	}
	config := p.api.LoopbackConfig()
	ours := rest.CopyConfig(config)
	ours.ContentType = runtime.ContentTypeJSON // our kind has no protobuf form
	own, err := clientset.NewForConfig(ours)
	if err != nil {
		return err
	}
	objects, err := metadata.NewForConfig(config)
	if err != nil {
		return err
	}
	p.own = lighterinformers.NewSharedInformerFactory(own, 0)
	w := &reconcilers{plane: p, ctx: ctx, client: p.api.Client(), informers: p.api.Informers()}
	hosts.Controller = w.images(own)
	w.workloads()
	w.network()
	w.lifecycle(objects)
	w.upstream()
	p.runners = w.runners
	return errors.Join(w.errs...)
}

// newToken lets the agent in this process join like any other; it has no more
// rights than any other.
func (p *controlPlane) newToken(ctx context.Context) (string, error) {
	select {
	case <-p.Ready():
	case <-ctx.Done():
		return "", ctx.Err()
	}
	return token.Create(ctx, p.api.Client(), p.authority.PEM, token.Options{TTL: time.Minute, Description: "the server's own agent"})
}

// Ready is closed when the API can be used.
func (p *controlPlane) Ready() <-chan struct{} { return p.api.Ready() }

// Run works until ctx ends or a part fails. The reconcilers stop first, etcd last.
func (p *controlPlane) Run(ctx context.Context) (err error) {
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
	p.own.Start(ctx.Done())
	group, ctx := errgroup.WithContext(ctx)
	for _, r := range p.runners {
		group.Go(func() error { return r.Run(ctx) })
	}
	err := group.Wait()
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// reconcilers collects the reconcilers, and the errors of making them.
type reconcilers struct {
	plane     *controlPlane
	ctx       context.Context
	client    kubernetes.Interface
	informers informers.SharedInformerFactory
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

func (w *reconcilers) images(own clientset.Interface) *image.Controller {
	const name = "image-controller"
	c, err := image.New(image.Config{
		Client: own, Core: w.client, Build: clusterBuild(w.plane.api.LoopbackConfig()),
		Informers: w.informers, LighterInformers: w.plane.own,
		Recorder: newRecorder(w.ctx, w.client, name), Log: w.log(name),
	})
	return add(w, c, err)
}

func (w *reconcilers) workloads() {
	d, err := deployment.New(deployment.Config{
		Client: w.client, Informers: w.informers, LighterInformers: w.plane.own,
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

func (w *reconcilers) lifecycle(objects metadata.Interface) {
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
		v1alpha1.SchemeGroupVersion.WithResource("images"):                     w.plane.own.Lighter().V1alpha1().Images().Informer(),
	}
}
