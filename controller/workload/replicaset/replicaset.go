package replicaset

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	appslisters "k8s.io/client-go/listers/apps/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"

	"lighter.dev/lighter/controller/reconcile"
	"lighter.dev/lighter/controller/workload/owner"
)

var kind = appsv1.SchemeGroupVersion.WithKind("ReplicaSet")

// workers is how many ReplicaSets are worked on at once. A pass mostly waits
// for the API server.
const workers = 8

// Config is what the reconciler needs; all fields are required.
type Config struct {
	Client    kubernetes.Interface
	Informers informers.SharedInformerFactory
	Recorder  record.EventRecorder
	Log       *slog.Logger
}

// Controller reconciles all ReplicaSets.
type Controller struct {
	client   kubernetes.Interface
	recorder record.EventRecorder
	log      *slog.Logger
	runner   *reconcile.Runner
	sets     appslisters.ReplicaSetLister
	setIndex cache.Indexer
	pods     corelisters.PodLister
	podIndex cache.Indexer
	expect   *expectations
	now      func() time.Time
}

// New registers its informers and handlers with the factory, which the caller
// starts.
func New(cfg Config) (*Controller, error) {
	sets, pods := cfg.Informers.Apps().V1().ReplicaSets(), cfg.Informers.Core().V1().Pods()
	c := &Controller{
		client:   cfg.Client,
		recorder: cfg.Recorder,
		log:      cfg.Log.With("reconciler", "replicaset"),
		sets:     sets.Lister(),
		setIndex: sets.Informer().GetIndexer(),
		pods:     pods.Lister(),
		podIndex: pods.Informer().GetIndexer(),
		expect:   newExpectations(),
		now:      time.Now,
	}
	c.runner = reconcile.New("replicaset", c.sync, cfg.Log)
	if err := errors.Join(owner.Index(pods.Informer()), owner.Index(sets.Informer())); err != nil {
		return nil, fmt.Errorf("replicaset: index the caches: %w", err)
	}
	setHandle, setErr := sets.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    c.runner.EnqueueObject,
		UpdateFunc: func(_, obj any) { c.runner.EnqueueObject(obj) },
		DeleteFunc: func(obj any) {
			if rs, ok := reconcile.Object[*appsv1.ReplicaSet](obj); ok {
				c.expect.forget(rs.UID)
			}
		},
	})
	podHandle, podErr := pods.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(obj any) { c.podChanged(nil, obj) },
		UpdateFunc: func(old, obj any) { c.podChanged(old, obj) },
		DeleteFunc: c.podDeleted,
	})
	if err := errors.Join(setErr, podErr); err != nil {
		return nil, fmt.Errorf("replicaset: watch: %w", err)
	}
	c.runner.WaitFor(setHandle.HasSynced, podHandle.HasSynced)
	return c, nil
}

// Run reconciles until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.runner.Run(ctx, workers) }

// podChanged wakes the ReplicaSets that a new or changed pod concerns.
func (c *Controller) podChanged(old, obj any) {
	pod, ok := obj.(*corev1.Pod)
	if !ok {
		return
	}
	ref := metav1.GetControllerOfNoCopy(pod)
	if before, ok := old.(*corev1.Pod); ok {
		if before.ResourceVersion == pod.ResourceVersion && pod.ResourceVersion != "" {
			return // a resync, not a change
		}
		if was := metav1.GetControllerOfNoCopy(before); was != nil && (ref == nil || ref.UID != was.UID) {
			c.wake(pod.Namespace, was)
		}
	}
	if ref != nil {
		c.expect.settle(ref.UID, created(pod.Name))
		if pod.DeletionTimestamp != nil {
			c.expect.settle(ref.UID, deleted(pod.UID))
		}
		c.wake(pod.Namespace, ref)
		return
	}
	c.wakeMatching(pod)
}

func (c *Controller) podDeleted(obj any) {
	pod, ok := reconcile.Object[*corev1.Pod](obj)
	if !ok {
		return
	}
	if ref := metav1.GetControllerOfNoCopy(pod); ref != nil {
		c.expect.settle(ref.UID, created(pod.Name))
		c.expect.settle(ref.UID, deleted(pod.UID))
		c.wake(pod.Namespace, ref)
	}
}

func (c *Controller) wake(namespace string, ref *metav1.OwnerReference) {
	if ref.Kind == kind.Kind {
		c.runner.Enqueue(namespace + "/" + ref.Name)
	}
}

// wakeMatching lets the ReplicaSets that could adopt an orphan look at it.
func (c *Controller) wakeMatching(pod *corev1.Pod) {
	sets, err := c.sets.GetPodReplicaSets(pod)
	if err != nil {
		return // no ReplicaSet selects it
	}
	for _, set := range sets {
		c.runner.EnqueueObject(set)
	}
}

// sync is one pass over one ReplicaSet: claim pods, decide, act, write status.
func (c *Controller) sync(ctx context.Context, key string) error {
	namespace, name, err := cache.SplitMetaNamespaceKey(key)
	if err != nil {
		return reconcile.Final(err)
	}
	rs, err := c.sets.ReplicaSets(namespace).Get(name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read replicaset: %w", err)
	}
	selector, err := metav1.LabelSelectorAsSelector(rs.Spec.Selector)
	if err != nil {
		return reconcile.Final(fmt.Errorf("selector: %w", err))
	}
	owned, err := c.claim(ctx, rs, selector)
	if err != nil {
		return err
	}
	var active []*corev1.Pod
	terminating := 0
	for _, pod := range owned {
		if isActive(pod) {
			active = append(active, pod)
		} else if isTerminating(pod) {
			terminating++
		}
	}
	var failure error
	if wait := c.expect.wait(rs.UID, c.now()); wait > 0 {
		c.runner.EnqueueAfter(key, wait) // events come first, normally
	} else {
		failure = c.act(ctx, rs, plan(rs, active, func() []*corev1.Pod { return c.related(rs) }, c.now()))
	}
	return errors.Join(failure, c.writeStatus(ctx, rs, active, terminating, failure))
}

// claim adopts and releases pods, and returns those that belong to rs.
func (c *Controller) claim(ctx context.Context, rs *appsv1.ReplicaSet, selector labels.Selector) ([]*corev1.Pod, error) {
	candidates, err := owner.Candidates[*corev1.Pod](c.podIndex, rs)
	if err != nil {
		return nil, err
	}
	claim := owner.Decide(rs, selector, candidates)
	claim.Adopt = keep(claim.Adopt, isActive)
	return owner.Carry(ctx, rs, claim, owner.Access[*corev1.Pod]{
		Kind: kind,
		Fresh: func(ctx context.Context) (metav1.Object, error) {
			return c.client.AppsV1().ReplicaSets(rs.Namespace).Get(ctx, rs.Name, metav1.GetOptions{})
		},
		Patch: func(ctx context.Context, pod *corev1.Pod, patch []byte) error {
			_, err := c.client.CoreV1().Pods(pod.Namespace).Patch(ctx, pod.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{})
			return err
		},
	})
}

func keep(pods []*corev1.Pod, wanted func(*corev1.Pod) bool) []*corev1.Pod {
	var kept []*corev1.Pod
	for _, pod := range pods {
		if wanted(pod) {
			kept = append(kept, pod)
		}
	}
	return kept
}

// related lists the pods of all ReplicaSets with rs's owner, rs included.
func (c *Controller) related(rs *appsv1.ReplicaSet) []*corev1.Pod {
	siblings := []*appsv1.ReplicaSet{rs}
	if ref := metav1.GetControllerOfNoCopy(rs); ref != nil {
		if found, err := owner.Children[*appsv1.ReplicaSet](c.setIndex, ref.UID); err == nil {
			siblings = found
		}
	}
	var pods []*corev1.Pod
	for _, sibling := range siblings {
		if found, err := owner.Children[*corev1.Pod](c.podIndex, sibling.UID); err == nil {
			pods = append(pods, found...)
		}
	}
	return pods
}

// writeStatus writes the status if it changed, and comes back when time alone
// will change it.
func (c *Controller) writeStatus(ctx context.Context, rs *appsv1.ReplicaSet, active []*corev1.Pod, terminating int, failure error) error {
	wanted, recheck := status(rs, active, terminating, failure, c.now())
	if recheck > 0 {
		c.runner.EnqueueAfter(rs.Namespace+"/"+rs.Name, recheck)
	}
	if equality.Semantic.DeepEqual(wanted, rs.Status) {
		return nil
	}
	changed := rs.DeepCopy()
	changed.Status = wanted
	_, err := c.client.AppsV1().ReplicaSets(rs.Namespace).UpdateStatus(ctx, changed, metav1.UpdateOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("write status: %w", err)
	}
	return nil
}
