// Package assign knows which pods this node has to run.
//
// It watches the pods that are bound to the node and writes each to a
// checkpoint file before anybody acts on it. An agent that boots while the API
// is away runs what its checkpoints say. A pod is given up only on evidence:
// a delete event, or its absence from a list that succeeded; an error of the
// connection is never evidence.
package assign

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// Pods is who runs them; *pod.Manager implements it.
type Pods interface {
	// OnRemoved sets what is called when nothing of a pod is left.
	OnRemoved(f func(uid types.UID))
	// Start adopts what runs already.
	Start(ctx context.Context) error
	// Update takes any version of a wanted pod.
	Update(pod *corev1.Pod)
	// Remove says that the API has no such pod; it reports whether there is
	// anything to clean up.
	Remove(uid types.UID) bool
	// Sweep removes what belongs to no known pod.
	Sweep(ctx context.Context) error
	// Wait returns when all work has stopped after the end of Start's context.
	Wait()
}

// Config is what an Assigner needs.
type Config struct {
	Client   kubernetes.Interface
	NodeName string
	// Dir holds the checkpoints, one file a pod.
	Dir  string
	Pods Pods
	// Observe is told every version of a pod that the API sends
	// (*status.Manager's method).
	Observe func(pod *corev1.Pod)
	// Synced is called once, after the first successful list and Sweep: now all
	// pods are known, and leftovers of others may be removed. It may be nil.
	Synced func(ctx context.Context)
	Log    *slog.Logger
}

// Assigner hands this node's pods to their workers.
type Assigner struct {
	cfg   Config
	store *checkpoints

	mu    sync.Mutex
	known map[types.UID]bool // dispatched and not yet gone
}

// New makes an Assigner and its checkpoint folder.
func New(cfg Config) (*Assigner, error) {
	store, err := openCheckpoints(cfg.Dir, cfg.Log)
	if err != nil {
		return nil, err
	}
	if cfg.Observe == nil {
		cfg.Observe = func(*corev1.Pod) {}
	}
	return &Assigner{cfg: cfg, store: store, known: map[types.UID]bool{}}, nil
}

// Run starts the pods of the checkpoints, then follows the API until ctx ends.
// Containers run on after that.
func (a *Assigner) Run(ctx context.Context) error {
	a.cfg.Pods.OnRemoved(a.removed)
	if err := a.cfg.Pods.Start(ctx); err != nil {
		return fmt.Errorf("adopt pods: %w", err)
	}
	defer a.cfg.Pods.Wait()
	remembered := a.store.load()
	for _, pod := range remembered {
		a.known[pod.UID] = true
		a.cfg.Pods.Update(pod)
	}
	if len(remembered) > 0 {
		a.cfg.Log.Info("Running pods from checkpoints until the API answers", "pods", len(remembered))
	}
	return a.follow(ctx)
}

// follow runs the informer. It lists again by itself after any error.
func (a *Assigner) follow(ctx context.Context) error {
	factory := informers.NewSharedInformerFactoryWithOptions(a.cfg.Client, 0,
		informers.WithTweakListOptions(func(o *metav1.ListOptions) {
			o.FieldSelector = fields.OneTermEqualSelector("spec.nodeName", a.cfg.NodeName).String()
		}),
		informers.WithTransform(slim))
	informer := factory.Core().V1().Pods().Informer()
	handler, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(obj any) { a.update(nil, obj.(*corev1.Pod)) },
		UpdateFunc: func(old, now any) { a.update(old.(*corev1.Pod), now.(*corev1.Pod)) },
		DeleteFunc: a.deleted,
	})
	if err != nil {
		return err
	}
	factory.StartWithContext(ctx)
	defer factory.Shutdown()
	if cache.WaitForCacheSync(ctx.Done(), handler.HasSynced) {
		a.synced(ctx, informer.GetStore())
	}
	<-ctx.Done()
	return nil
}

// slim drops what this node never reads.
func slim(obj any) (any, error) {
	if pod, ok := obj.(*corev1.Pod); ok {
		pod.ManagedFields = nil
	}
	return obj, nil
}

// synced gives up the remembered pods that the API does not know, and has the
// rest swept.
func (a *Assigner) synced(ctx context.Context, store cache.Store) {
	listed := map[types.UID]bool{}
	for _, obj := range store.List() {
		listed[obj.(*corev1.Pod).UID] = true
	}
	a.mu.Lock()
	var lost []types.UID
	for uid := range a.known {
		if !listed[uid] {
			lost = append(lost, uid)
		}
	}
	a.mu.Unlock()
	for _, uid := range lost {
		a.cfg.Log.Info("Pod is no longer assigned to this node", "uid", uid)
		a.drop(uid)
	}
	if err := a.cfg.Pods.Sweep(ctx); err != nil {
		a.cfg.Log.Warn("Could not remove all leftovers", "err", err)
	}
	if a.cfg.Synced != nil {
		a.cfg.Synced(ctx)
	}
}

// update takes one version of a pod. old is nil for a new one.
func (a *Assigner) update(old, pod *corev1.Pod) {
	if old != nil && old.UID != pod.UID {
		// Deleted and made anew under the same name while we did not look.
		a.drop(old.UID)
	}
	a.mu.Lock()
	if !a.known[pod.UID] {
		a.cfg.Log.Info("Pod assigned", "pod", pod.Namespace+"/"+pod.Name, "uid", pod.UID)
	}
	a.known[pod.UID] = true
	a.mu.Unlock()
	if err := a.store.save(pod); err != nil {
		// It runs anyway; only a restart without the API would not know it.
		a.cfg.Log.Error("Cannot checkpoint pod", "pod", pod.Namespace+"/"+pod.Name, "err", err)
	}
	a.cfg.Observe(pod)
	a.cfg.Pods.Update(pod)
}

// deleted takes a delete event, which may name a pod whose end was missed.
func (a *Assigner) deleted(obj any) {
	if unknown, ok := obj.(cache.DeletedFinalStateUnknown); ok {
		obj = unknown.Obj
	}
	pod, ok := obj.(*corev1.Pod)
	if !ok {
		a.cfg.Log.Error("Unexpected object in delete event", "err", errors.New("not a pod"))
		return
	}
	a.drop(pod.UID)
}

// drop gives a pod up.
func (a *Assigner) drop(uid types.UID) {
	if !a.cfg.Pods.Remove(uid) {
		a.removed(uid)
	}
}

// removed forgets a pod of which nothing is left.
func (a *Assigner) removed(uid types.UID) {
	a.mu.Lock()
	delete(a.known, uid)
	a.mu.Unlock()
	if err := a.store.remove(uid); err != nil {
		a.cfg.Log.Warn("Cannot remove checkpoint", "uid", uid, "err", err)
	}
}
