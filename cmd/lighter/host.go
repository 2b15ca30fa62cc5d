package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"

	"lighter.dev/lighter/agent/assign"
	"lighter.dev/lighter/agent/build"
	"lighter.dev/lighter/agent/identity"
	"lighter.dev/lighter/agent/image"
	"lighter.dev/lighter/agent/node"
	"lighter.dev/lighter/agent/pod"
	"lighter.dev/lighter/agent/redial"
	"lighter.dev/lighter/agent/runtime"
	"lighter.dev/lighter/agent/status"
	"lighter.dev/lighter/api/client/clientset"
	lighterinformers "lighter.dev/lighter/api/client/informers"
	"lighter.dev/lighter/api/events"
)

// joinable is a cluster that a host can be a member of.
type joinable struct {
	url string // of its API
	// token is a join token, newToken makes one when it is needed and token is "".
	token    string
	newToken func(ctx context.Context) (string, error)
}

// host is an agent: everything that one member of a cluster runs. Its parts are
// opened in the order of their needs, see Run.
type host struct {
	options agentOptions
	cluster joinable
	ip      netip.Addr
	log     *slog.Logger

	identity  *identity.Identity
	client    kubernetes.Interface
	watching  kubernetes.Interface // what informers and the like read by
	lease     kubernetes.Interface // renews the node's lease, by connections of its own
	servers   *redial.Servers      // that clients may speak to
	dialer    *redial.Dialer       // of all clients but lease
	leaseDial *redial.Dialer
	own       clientset.Interface
	informers informers.SharedInformerFactory
	images    lighterinformers.SharedInformerFactory
	recorder  record.EventRecorder

	engine   *runtime.Engine
	store    *image.Store
	node     *node.Node
	network  atomic.Pointer[hostNetwork] // nil until pods can be connected
	builder  *build.Builder
	pods     *pod.Manager
	statuses *status.Manager
	// swept is closed when leftovers of an earlier life are gone: from then on
	// namespaces without a pod are those of running builds.
	swept chan struct{}
}

// newHost wants options that have been checked.
func newHost(options agentOptions, cluster joinable, log *slog.Logger) (*host, error) {
	ip, err := options.address(cluster.url)
	if err != nil {
		return nil, usageError{fmt.Errorf("--node-ip: %w", err)}
	}
	return &host{options: options, cluster: cluster, ip: ip, log: log.With("node", options.nodeName), swept: make(chan struct{})}, nil
}

// dir is a folder of the agent's data.
func (h *host) dir(name string) string { return filepath.Join(h.options.dataDir, "agent", name) }

func (h *host) logOf(part string) *slog.Logger { return h.log.With("part", part) }

// Run joins the cluster and works until ctx ends; containers run on after that.
// ready is called when the host takes pods.
func (h *host) Run(ctx context.Context, ready func()) error {
	if err := h.join(ctx); err != nil {
		return h.ended(ctx, err)
	}
	if err := h.open(ctx); err != nil {
		return h.ended(ctx, err)
	}
	defer h.close()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return h.identity.Run(ctx) })
	group.Go(func() error { return h.node.Run(ctx) })
	group.Go(func() error { return h.connect(ctx, group, ready) })
	return h.ended(ctx, group.Wait())
}

// ended keeps the end of ctx from being reported as a failure.
func (h *host) ended(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// join makes the host a member, or finds that it is one, and makes its clients.
func (h *host) join(ctx context.Context) error {
	h.servers = redial.NewServers(hostPort(h.cluster.url))
	h.dialer, h.leaseDial = redial.New(h.servers), redial.New(h.servers)
	var err error
	h.identity, err = identity.Bootstrap(ctx, identity.Config{
		Server: h.cluster.url, Dial: h.dialer.DialContext, Token: h.cluster.token, NewToken: h.cluster.newToken, NodeName: h.options.nodeName, NodeIPs: []netip.Addr{h.ip},
		Dir: h.dir("identity"), Log: h.logOf("identity"),
	})
	if err != nil {
		return err
	}
	h.servers.Set(serverList(h.cluster, h.options.nodeName, h.identity.Servers()))
	config := h.identity.ClientConfig()
	// What matters is bounded by the work itself; a limit here would only delay
	// a burst of pods.
	config.QPS, config.Burst = -1, -1
	config.UserAgent = "lighter-agent"
	shared, err := rest.HTTPClientFor(config)
	if err != nil {
		return err
	}
	if h.own, err = clientset.NewForConfigAndClient(config, shared); err != nil {
		return err
	}
	config.ContentType = "application/vnd.kubernetes.protobuf"
	if h.client, err = kubernetes.NewForConfigAndClient(config, shared); err != nil {
		return err
	}
	leaseConfig := rest.CopyConfig(config)
	leaseConfig.Dial = h.leaseDial.DialContext
	if h.lease, err = kubernetes.NewForConfig(leaseConfig); err != nil {
		return err
	}
	h.recorder = events.NewRecorder(ctx, h.client, corev1.EventSource{Component: agentComponent, Host: h.options.nodeName})
	if err := h.openInformers(config, shared); err != nil {
		return err
	}
	return errors.Join(
		indexNodesByImage(h.informers.Core().V1().Nodes().Informer()),
		indexImages(h.images.Lighter().V1alpha1().Images().Informer()),
		h.followServers(),
	)
}

// open makes the parts that need no network. The engine and the image store
// look at what is on the disk, at the same time.
func (h *host) open(ctx context.Context) error {
	if err := image.SweepTemporary(h.dir("tmp")); err != nil {
		h.log.Warn("temporary mounts of the last run stay", "error", err)
	}
	if err := image.UseTemporary(h.dir("tmp")); err != nil {
		return err
	}
	var group errgroup.Group
	group.Go(func() (err error) {
		runtimes, _ := h.options.moreRuntimes() // checked before newHost
		h.engine, err = runtime.New(ctx, runtime.Config{
			StateDir: h.dir("runtime"), RunDir: h.options.runDir, Runtime: h.options.runtime,
			Runtimes: runtimes, CgroupRoot: h.options.cgroupRoot, Log: h.logOf("runtime"),
		})
		return err
	})
	group.Go(func() (err error) {
		registries, _ := h.options.registries.registries() // checked before newHost
		h.store, err = image.Open(ctx, image.Config{
			Root: h.dir("images"), Snapshotter: h.options.storageDriver,
			Peers:      h.peers(),
			TLS:        h.identity.ClientTLS(),
			Builds:     clusterBuilds{h.images.Lighter().V1alpha1().Images().Informer().GetIndexer()},
			Users:      h.imageUsers,
			Registries: registries, DefaultRegistry: h.options.registries.defaultHost,
			Log: h.logOf("image"),
		})
		return err
	})
	if err := group.Wait(); err != nil {
		h.close()
		return err
	}
	var err error
	if h.node, err = node.New(h.nodeConfig()); err != nil {
		h.close()
	}
	return err
}

func (h *host) peers() peerHolders {
	return peerHolders{
		nodes:  h.informers.Core().V1().Nodes().Informer().GetIndexer(),
		images: h.images.Lighter().V1alpha1().Images().Informer().GetIndexer(),
		self:   h.options.nodeName, alive: h.alive, lost: h.lost,
	}
}

func (h *host) nodeConfig() node.Config {
	labels, _ := h.options.nodeLabels() // checked before newHost
	taints, _ := h.options.nodeTaints()
	return node.Config{
		Client: h.client, LeaseClient: h.lease, DropLease: h.leaseDial.Blame, Back: h.dialer.Drop,
		Name: h.options.nodeName, IPs: []netip.Addr{h.ip}, Port: int32(h.options.port),
		Version: version, Labels: labels, Taints: taints, DataDir: h.dir(""), MaxPods: h.options.maxPods,
		Images: h.heldImages, ImagesChanged: h.store.Changed, NetworkReady: h.networkReady, Log: h.logOf("node"),
	}
}

// connect brings up the network as soon as it is known, then starts what needs
// it: builds, pods and the endpoint.
func (h *host) connect(ctx context.Context, group *errgroup.Group, ready func()) error {
	h.informers.Start(ctx.Done())
	h.images.Start(ctx.Done())
	network, err := h.openNetwork(ctx)
	if err != nil {
		return err
	}
	h.network.Store(network)
	if err := h.openBuilder(ctx, network); err != nil {
		return err
	}
	if err := h.openPods(ctx, network); err != nil {
		return err
	}
	h.awaitCaches(ctx)
	assigner, err := h.openAssigner()
	if err != nil {
		return err
	}
	endpoint, err := h.listen(ctx)
	if err != nil {
		return err
	}
	local, err := h.listenLocal(ctx)
	if err != nil {
		return err
	}
	api := h.localAPI()
	group.Go(func() error { return h.serve(ctx, endpoint) })
	for _, listener := range local {
		group.Go(func() error { return h.serveLocal(ctx, listener, api) })
	}
	group.Go(func() error { return network.Run(ctx) })
	group.Go(func() error { return h.keepImages(ctx) })
	group.Go(func() error { return h.reclaimDisk(ctx) })
	group.Go(func() error { return h.statuses.Run(ctx) })
	group.Go(func() error { return h.engine.RotateLogs(ctx, h.logRotation()) })
	group.Go(func() error { return assigner.Run(ctx) })
	h.node.Annotate(network.annotations())
	select {
	case <-h.node.Registered():
		ready()
	case <-ctx.Done():
	}
	return nil
}

func (h *host) logRotation() runtime.LogRotation {
	size, _ := h.options.logBytes() // checked before newHost
	return runtime.LogRotation{MaxBytes: size, MaxFiles: h.options.logMaxFiles}
}

// awaitCaches lets pods wait until this host knows what the cluster builds, lest it
// ask a registry for such a name, and its neighbours, lest all of them ask a registry
// for the same image; but not for long, as the API may be away.
func (h *host) awaitCaches(ctx context.Context) {
	const patience = 2 * time.Second
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	cache.WaitForCacheSync(ctx.Done(),
		h.images.Lighter().V1alpha1().Images().Informer().HasSynced, h.informers.Core().V1().Nodes().Informer().HasSynced)
}

// close gives up what is open; everything on the disk is whole at any time.
func (h *host) close() {
	if h.builder != nil {
		if err := h.builder.Close(); err != nil {
			h.log.Warn("the builder did not stop cleanly", "error", err)
		}
	}
	if h.store != nil {
		if err := h.store.Close(); err != nil {
			h.log.Warn("the image store did not close cleanly", "error", err)
		}
	}
}

func (h *host) openAssigner() (*assign.Assigner, error) {
	return assign.New(assign.Config{
		Client: h.watching, NodeName: h.options.nodeName, Dir: h.dir("pods"), Pods: h.pods, Observe: h.statuses.Observe,
		Synced: func(context.Context) { close(h.swept) }, Log: h.logOf("assign"),
	})
}
