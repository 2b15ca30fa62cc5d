package lifecycle

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"

	"lighter.dev/lighter/controller/reconcile"
)

// DefaultGrace is how long a lease may stay unchanged. The budget: replacements of a
// lost host's pods run within 8 s, and a partition of 5 s evicts nothing. A lease
// renewed every second is at most 6 s old when a 5 s partition heals, which leaves
// the agent 0.8 s to get through, and the replacements 1.2 s to start.
const DefaultGrace = 6800 * time.Millisecond

// Deps is what the reconcilers of this package work with. The informers are
// started by the caller after the constructors ran.
type Deps struct {
	Client    kubernetes.Interface
	Informers informers.SharedInformerFactory
	Recorder  record.EventRecorder
	Log       *slog.Logger
}

// NodesConfig configures Nodes; zero values mean the defaults.
type NodesConfig struct {
	// Grace is how long a node's lease may stay unchanged before it is lost. DefaultGrace.
	Grace time.Duration
	// EvictAfterLost is how long pods without a toleration of their own stay on a
	// lost node. 0: not at all.
	EvictAfterLost time.Duration
	// EvictAfterNotReady is the same for a node whose agent lives and says that it is
	// not ready. 5 minutes: that is usually a restart or a full disk.
	EvictAfterNotReady time.Duration
	// MaxLost is the share of nodes that may be silent at once; if more are, nothing is
	// evicted. 0.55.
	MaxLost float64
}

// Nodes watches over the hosts. It is the only writer of the taints
// node.kubernetes.io/unreachable and not-ready, and writes a node's conditions only
// while its agent is lost.
type Nodes struct {
	Deps
	cfg    NodesConfig
	nodes  corelisters.NodeLister
	pods   cache.Indexer
	runner *reconcile.Runner
	now    func() time.Time

	mu        sync.Mutex
	heartbeat map[string]heartbeat // by node
	guarded   time.Time            // when too many were last silent together
}

// heartbeat is the latest sign of life of a node.
type heartbeat struct {
	sign string    // what was seen: changes with every sign
	at   time.Time // when it was seen here
	lost bool      // the last decision
}

// NewNodes registers the reconciler with the informers.
func NewNodes(d Deps, cfg NodesConfig) (*Nodes, error) {
	if cfg.Grace == 0 {
		cfg.Grace = DefaultGrace
	}
	if cfg.EvictAfterNotReady == 0 {
		cfg.EvictAfterNotReady = 5 * time.Minute
	}
	if cfg.MaxLost == 0 {
		cfg.MaxLost = 0.55
	}
	nodes := d.Informers.Core().V1().Nodes()
	pods := d.Informers.Core().V1().Pods().Informer()
	n := &Nodes{Deps: d, cfg: cfg, nodes: nodes.Lister(), pods: pods.GetIndexer(), now: time.Now, heartbeat: map[string]heartbeat{}}
	n.runner = reconcile.New("node", n.sync, d.Log)
	if err := indexPodsByNode(pods); err != nil {
		return nil, err
	}
	handlers := map[cache.SharedIndexInformer]cache.ResourceEventHandler{
		nodes.Informer(): n.runner.Handler(),
		d.Informers.Coordination().V1().Leases().Informer(): cache.ResourceEventHandlerFuncs{
			AddFunc: n.observeLease, UpdateFunc: func(_, obj any) { n.observeLease(obj) },
		},
		// A pod that comes to a tainted node (bound just before the taint) must be looked at.
		pods: cache.ResourceEventHandlerFuncs{AddFunc: n.observePod, UpdateFunc: func(old, obj any) { n.observeBinding(old, obj) }},
	}
	for informer, handler := range handlers {
		registration, err := informer.AddEventHandler(handler)
		if err != nil {
			return nil, fmt.Errorf("watch nodes: %w", err)
		}
		n.runner.WaitFor(registration.HasSynced)
	}
	return n, nil
}

// Run watches over the nodes until ctx ends. Every node gets a full Grace from now:
// what happened while nobody watched is not held against it.
func (n *Nodes) Run(ctx context.Context) error { return n.runner.Run(ctx, 4) }

// observeLease notes a renewal. It is called for every renewal of every node, so it
// wakes the queue only for a node that was thought lost.
func (n *Nodes) observeLease(obj any) {
	lease, ok := obj.(*coordinationv1.Lease)
	if !ok || lease.Namespace != corev1.NamespaceNodeLease || lease.Spec.RenewTime == nil {
		return
	}
	if n.observe(lease.Name, "lease "+lease.Spec.RenewTime.String()) {
		n.runner.Enqueue(lease.Name)
	}
}

// observe notes a sign of life, if it is a new one; it tells whether the node was lost.
func (n *Nodes) observe(node, sign string) (wasLost bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	last, known := n.heartbeat[node]
	if known && last.sign == sign {
		return false
	}
	n.heartbeat[node] = heartbeat{sign: sign, at: n.now(), lost: last.lost}
	return last.lost
}

func (n *Nodes) observePod(obj any) {
	pod, ok := obj.(*corev1.Pod)
	if !ok || pod.Spec.NodeName == "" {
		return
	}
	node, err := n.nodes.Get(pod.Spec.NodeName)
	if err == nil && len(noExecute(node.Spec.Taints)) > 0 {
		n.runner.Enqueue(node.Name)
	}
}

func (n *Nodes) observeBinding(old, obj any) {
	before, ok1 := old.(*corev1.Pod)
	pod, ok2 := obj.(*corev1.Pod)
	if ok1 && ok2 && before.Spec.NodeName != pod.Spec.NodeName {
		n.observePod(obj)
	}
}

// sync brings the API in line with what is known about one node.
func (n *Nodes) sync(ctx context.Context, name string) error {
	node, err := n.nodes.Get(name)
	if apierrors.IsNotFound(err) {
		n.mu.Lock()
		delete(n.heartbeat, name)
		n.mu.Unlock()
		return nil
	}
	if err != nil {
		return fmt.Errorf("read node: %w", err)
	}
	view, err := n.view(node)
	if err != nil {
		return err
	}
	plan := decide(view, n.cfg)
	if err := n.carryOut(ctx, node, plan); err != nil {
		return err
	}
	n.runner.EnqueueAfter(name, plan.again)
	return nil
}

// view gathers what decide needs, and remembers whether the node is lost.
func (n *Nodes) view(node *corev1.Node) (view, error) {
	all, err := n.nodes.List(labels.Everything())
	if err != nil {
		return view{}, fmt.Errorf("list nodes: %w", err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	now := n.now()
	silent := 0
	for _, other := range all {
		if now.Sub(n.lastSeen(other.Name, now)) > n.cfg.Grace/2 {
			silent++
		}
	}
	if float64(silent) > n.cfg.MaxLost*float64(len(all)) {
		if now.Sub(n.guarded) > n.cfg.Grace/2 {
			n.Log.Warn("most nodes are silent; nothing is evicted until that has passed", "silent", silent, "nodes", len(all))
		}
		n.guarded = now
	}
	v := view{
		node: node, now: now, age: now.Sub(n.lastSeen(node.Name, now)),
		// The last of several nodes to come back deserves as much patience as the first.
		guard: !n.guarded.IsZero() && now.Sub(n.guarded) < n.cfg.Grace/2,
	}
	last := n.heartbeat[node.Name]
	lost := v.age >= n.cfg.Grace
	if lost != last.lost {
		n.Log.Info("node", "node", node.Name, "lost", lost, "silent", v.age.Round(time.Millisecond))
	}
	last.lost = lost
	n.heartbeat[node.Name] = last
	return v, nil
}

// lastSeen is when a node gave its last sign; a node never seen counts from now on.
// The caller holds the lock.
func (n *Nodes) lastSeen(name string, now time.Time) time.Time {
	last, ok := n.heartbeat[name]
	if !ok {
		last = heartbeat{at: now}
		n.heartbeat[name] = last
	}
	return last.at
}
