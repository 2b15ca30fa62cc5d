package lifecycle

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"

	"lighter.dev/lighter/controller/reconcile"
)

const (
	// DefaultOrphanGrace is how long a pod outlives its Node object: an agent whose
	// Node was deleted by mistake registers again within this time.
	DefaultOrphanGrace = 5 * time.Second
	// DefaultTerminatedLimit is how many finished pods are kept for looking at.
	DefaultTerminatedLimit = 1000
	// terminatedKey is the queue key under which finished pods are counted; no pod
	// has such a key.
	terminatedKey = "*terminated"
	// terminatedBatch is how long finished pods gather before they are counted.
	terminatedBatch = 5 * time.Second
)

// PodGCConfig configures PodGC; zero values mean the defaults.
type PodGCConfig struct {
	OrphanGrace     time.Duration
	TerminatedLimit int
}

// PodGC removes pods that no agent will ever remove: those of deleted nodes, those
// of nodes that an operator tainted node.kubernetes.io/out-of-service (KEP-2268),
// and the oldest finished ones above a limit.
type PodGC struct {
	Deps
	cfg    PodGCConfig
	pods   corelisters.PodLister
	byNode cache.Indexer
	nodes  corelisters.NodeLister
	runner *reconcile.Runner

	mu      sync.Mutex
	missing map[string]time.Time // node → since when it is known not to exist
}

// NewPodGC registers the reconciler with the informers.
func NewPodGC(d Deps, cfg PodGCConfig) (*PodGC, error) {
	if cfg.OrphanGrace == 0 {
		cfg.OrphanGrace = DefaultOrphanGrace
	}
	if cfg.TerminatedLimit == 0 {
		cfg.TerminatedLimit = DefaultTerminatedLimit
	}
	pods := d.Informers.Core().V1().Pods()
	nodes := d.Informers.Core().V1().Nodes()
	g := &PodGC{Deps: d, cfg: cfg, pods: pods.Lister(), byNode: pods.Informer().GetIndexer(), nodes: nodes.Lister(), missing: map[string]time.Time{}}
	g.runner = reconcile.New("pod-gc", g.sync, d.Log)
	if err := indexPodsByNode(pods.Informer()); err != nil {
		return nil, err
	}
	podsSynced, err := pods.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    g.observePod,
		UpdateFunc: func(_, obj any) { g.observePod(obj) },
	})
	if err != nil {
		return nil, fmt.Errorf("watch pods: %w", err)
	}
	nodesSynced, err := nodes.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    g.observeNode,
		UpdateFunc: func(_, obj any) { g.observeNode(obj) },
		DeleteFunc: g.observeNode,
	})
	if err != nil {
		return nil, fmt.Errorf("watch nodes: %w", err)
	}
	g.runner.WaitFor(podsSynced.HasSynced, nodesSynced.HasSynced)
	return g, nil
}

// Run collects until ctx ends.
func (g *PodGC) Run(ctx context.Context) error { return g.runner.Run(ctx, 2) }

// observePod enqueues pods that may have to go; all others stay out of the queue.
func (g *PodGC) observePod(obj any) {
	pod, ok := obj.(*corev1.Pod)
	if !ok {
		return
	}
	if finished(pod) {
		g.runner.EnqueueAfter(terminatedKey, terminatedBatch)
	}
	if pod.Spec.NodeName == "" {
		return // the API deletes a pod that is bound nowhere by itself
	}
	node, err := g.nodes.Get(pod.Spec.NodeName)
	if err != nil || pod.DeletionTimestamp != nil && outOfService(node) {
		g.runner.EnqueueObject(pod)
	}
}

// observeNode enqueues the pods of a node that is gone or out of service.
func (g *PodGC) observeNode(obj any) {
	node, ok := reconcile.Object[*corev1.Node](obj)
	if !ok {
		return
	}
	if _, err := g.nodes.Get(node.Name); err == nil {
		g.mu.Lock()
		delete(g.missing, node.Name)
		g.mu.Unlock()
		if !outOfService(node) {
			return
		}
	}
	pods, err := podsOf(g.byNode, node.Name)
	if err != nil {
		return
	}
	for _, pod := range pods {
		g.runner.EnqueueObject(pod)
	}
}

func finished(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

func outOfService(node *corev1.Node) bool {
	return readyStatus(node) != corev1.ConditionTrue &&
		slices.ContainsFunc(node.Spec.Taints, func(t corev1.Taint) bool { return t.Key == corev1.TaintNodeOutOfService })
}

func (g *PodGC) sync(ctx context.Context, key string) error {
	if key == terminatedKey {
		return g.trim(ctx)
	}
	namespace, name, err := cache.SplitMetaNamespaceKey(key)
	if err != nil {
		return reconcile.Final(err)
	}
	pod, err := g.pods.Pods(namespace).Get(name)
	if apierrors.IsNotFound(err) || err == nil && pod.Spec.NodeName == "" {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read pod: %w", err)
	}
	node, err := g.nodes.Get(pod.Spec.NodeName)
	switch {
	case err == nil && outOfService(node) && pod.DeletionTimestamp != nil:
		return g.remove(ctx, pod, "node "+node.Name+" is out of service")
	case err == nil:
		return nil
	case !apierrors.IsNotFound(err):
		return fmt.Errorf("read node: %w", err)
	}
	if wait, err := g.confirmMissing(ctx, pod.Spec.NodeName); err != nil || wait < 0 {
		return err
	} else if wait > 0 {
		g.runner.EnqueueAfter(key, wait)
		return nil
	}
	return g.remove(ctx, pod, "node "+pod.Spec.NodeName+" no longer exists")
}

// confirmMissing asks the API itself, because the cache may lag behind. It returns how
// long to wait before the node counts as gone: 0 now, negative if it exists.
func (g *PodGC) confirmMissing(ctx context.Context, node string) (time.Duration, error) {
	now := time.Now()
	g.mu.Lock()
	since, known := g.missing[node]
	if !known {
		since = now
		g.missing[node] = since
	}
	g.mu.Unlock()
	if wait := g.cfg.OrphanGrace - now.Sub(since); wait > 0 {
		return wait, nil
	}
	_, err := g.Client.CoreV1().Nodes().Get(ctx, node, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return -1, fmt.Errorf("read node %s: %w", node, err)
	}
	g.mu.Lock()
	delete(g.missing, node)
	g.mu.Unlock()
	return -1, nil
}

// remove records why the pod ended, then deletes it without waiting for an agent.
func (g *PodGC) remove(ctx context.Context, pod *corev1.Pod, why string) error {
	pods := g.Client.CoreV1().Pods(pod.Namespace)
	if !finished(pod) {
		patch, err := json.Marshal(map[string]any{
			"metadata": map[string]any{"uid": pod.UID},
			"status": map[string]any{"phase": corev1.PodFailed, "reason": "PodGC", "message": "Deleted: " + why,
				"conditions": []corev1.PodCondition{{
					Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: "DeletionByPodGC",
					Message: "Deleted: " + why, LastTransitionTime: metav1.Now()}}},
		})
		if err != nil {
			return fmt.Errorf("fail pod: %w", err)
		}
		_, err = pods.Patch(ctx, pod.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
		if apierrors.IsNotFound(err) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("fail pod %s/%s: %w", pod.Namespace, pod.Name, err)
		}
	}
	g.Log.Info("delete pod", "pod", pod.Namespace+"/"+pod.Name, "why", why)
	err := pods.Delete(ctx, pod.Name, metav1.DeleteOptions{
		GracePeriodSeconds: ptr.To[int64](0), Preconditions: &metav1.Preconditions{UID: &pod.UID}})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return fmt.Errorf("delete pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	return nil
}

// trim deletes the oldest finished pods above the limit.
func (g *PodGC) trim(ctx context.Context) error {
	all, err := g.pods.List(labels.Everything())
	if err != nil {
		return fmt.Errorf("list pods: %w", err)
	}
	all = slices.DeleteFunc(all, func(pod *corev1.Pod) bool { return !finished(pod) || pod.DeletionTimestamp != nil })
	if len(all) <= g.cfg.TerminatedLimit {
		return nil
	}
	slices.SortFunc(all, func(a, b *corev1.Pod) int {
		if c := a.CreationTimestamp.Compare(b.CreationTimestamp.Time); c != 0 {
			return c
		}
		return strings.Compare(a.Name, b.Name)
	})
	var errs error
	for _, pod := range all[:len(all)-g.cfg.TerminatedLimit] {
		errs = errors.Join(errs, g.remove(ctx, pod, "too many finished pods"))
	}
	return errs
}
