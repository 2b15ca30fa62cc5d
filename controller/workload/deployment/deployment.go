package deployment

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	appslisters "k8s.io/client-go/listers/apps/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"

	lighterinformers "lighter.dev/lighter/api/client/informers"
	"lighter.dev/lighter/controller/reconcile"
	"lighter.dev/lighter/controller/workload/owner"
)

// workers is how many Deployments are worked on at once.
const workers = 8

// Config is what the reconciler needs; all fields are required.
type Config struct {
	Client           kubernetes.Interface
	Informers        informers.SharedInformerFactory
	LighterInformers lighterinformers.SharedInformerFactory
	Recorder         record.EventRecorder
	Log              *slog.Logger
}

// Controller reconciles all Deployments.
type Controller struct {
	client          kubernetes.Interface
	recorder        record.EventRecorder
	log             *slog.Logger
	runner          *reconcile.Runner
	deployments     appslisters.DeploymentLister
	deploymentIndex cache.Indexer
	sets            appslisters.ReplicaSetLister
	setIndex        cache.Indexer
	podIndex        cache.Indexer
	images          cache.Indexer
	now             func() time.Time
}

// New registers its informers and handlers with the factories, which the
// caller starts.
func New(cfg Config) (*Controller, error) {
	apps := cfg.Informers.Apps().V1()
	deployments, sets := apps.Deployments(), apps.ReplicaSets()
	pods := cfg.Informers.Core().V1().Pods().Informer()
	images := cfg.LighterInformers.Lighter().V1alpha1().Images().Informer()
	c := &Controller{
		client:          cfg.Client,
		recorder:        cfg.Recorder,
		log:             cfg.Log.With("reconciler", "deployment"),
		deployments:     deployments.Lister(),
		deploymentIndex: deployments.Informer().GetIndexer(),
		sets:            sets.Lister(),
		setIndex:        sets.Informer().GetIndexer(),
		podIndex:        pods.GetIndexer(),
		images:          images.GetIndexer(),
		now:             time.Now,
	}
	c.runner = reconcile.New("deployment", c.sync, cfg.Log)
	err := errors.Join(owner.Index(sets.Informer()), owner.Index(pods), indexTags(images, deployments.Informer()))
	if err != nil {
		return nil, fmt.Errorf("deployment: index the caches: %w", err)
	}
	for _, watched := range []struct {
		informer cache.SharedIndexInformer
		handler  cache.ResourceEventHandler
	}{
		{deployments.Informer(), c.runner.Handler()},
		{sets.Informer(), handler(c.setChanged)},
		{pods, handler(c.podChanged)},
		{images, handler(c.imageChanged)},
	} {
		handle, err := watched.informer.AddEventHandler(watched.handler)
		if err != nil {
			return nil, fmt.Errorf("deployment: watch: %w", err)
		}
		c.runner.WaitFor(handle.HasSynced)
	}
	return c, nil
}

// Run reconciles until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.runner.Run(ctx, workers) }

// handler calls changed with the states before and after an event; one of them
// is nil for an addition or a deletion.
func handler(changed func(old, obj any)) cache.ResourceEventHandler {
	return cache.ResourceEventHandlerFuncs{
		AddFunc:    func(obj any) { changed(nil, obj) },
		UpdateFunc: changed,
		DeleteFunc: func(obj any) {
			if metaObj, ok := reconcile.Object[metav1.Object](obj); ok {
				changed(metaObj, nil)
			}
		},
	}
}

// setChanged wakes the owner of a ReplicaSet, or whoever could adopt it.
func (c *Controller) setChanged(old, obj any) {
	for _, state := range []any{old, obj} {
		rs, ok := state.(*appsv1.ReplicaSet)
		if !ok {
			continue
		}
		if ref := metav1.GetControllerOfNoCopy(rs); ref != nil {
			c.wake(rs.Namespace, ref)
			continue
		}
		found, err := c.deployments.Deployments(rs.Namespace).List(labels.Everything())
		if err != nil || obj == nil {
			continue
		}
		for _, d := range found {
			if selector, err := metav1.LabelSelectorAsSelector(d.Spec.Selector); err == nil && !selector.Empty() && selector.Matches(labels.Set(rs.Labels)) {
				c.runner.EnqueueObject(d)
			}
		}
	}
}

func (c *Controller) wake(namespace string, ref *metav1.OwnerReference) {
	if ref.Kind == kind.Kind {
		c.runner.Enqueue(namespace + "/" + ref.Name)
	}
}

// podChanged matters to the strategy Recreate only, which waits until the last
// old pod has ended.
func (c *Controller) podChanged(old, obj any) {
	pod, ok := old.(*corev1.Pod)
	if now, changed := obj.(*corev1.Pod); !ok || (changed && mayRun(now)) {
		return
	}
	ref := metav1.GetControllerOfNoCopy(pod)
	if ref == nil || ref.Kind != "ReplicaSet" {
		return
	}
	rs, err := c.sets.ReplicaSets(pod.Namespace).Get(ref.Name)
	if err != nil {
		return
	}
	if ref = metav1.GetControllerOfNoCopy(rs); ref == nil {
		return
	}
	if d, err := c.deployments.Deployments(pod.Namespace).Get(ref.Name); err == nil && !isRolling(d) {
		c.runner.EnqueueObject(d)
	}
}

// mayRun tells pods that have not ended for good; a terminating one still runs.
func mayRun(pod *corev1.Pod) bool {
	return pod.Status.Phase != corev1.PodSucceeded && pod.Status.Phase != corev1.PodFailed
}

// sync is one pass over one Deployment: pin images, claim ReplicaSets, decide,
// act.
func (c *Controller) sync(ctx context.Context, key string) error {
	namespace, name, err := cache.SplitMetaNamespaceKey(key)
	if err != nil {
		return reconcile.Final(err)
	}
	d, err := c.deployments.Deployments(namespace).Get(name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read deployment: %w", err)
	}
	sets, err := c.claim(ctx, d)
	if err != nil {
		return err
	}
	pins := pin(d, func(ref string) imageState { return c.imageState(namespace, ref) })
	if pins.overtook && d.DeletionTimestamp == nil {
		return c.dropOvertaken(ctx, d, pins)
	}
	wanted := pinned(d, pins.pins)
	next, err := decide(wanted, observation{sets: sets, live: c.livePods(d, sets), waiting: pins.waiting, now: c.now()})
	if err != nil {
		return reconcile.Final(err)
	}
	if next.recheck > 0 {
		c.runner.EnqueueAfter(key, next.recheck)
	}
	return c.act(ctx, d, wanted, pins, next)
}

// claim adopts and releases ReplicaSets, and returns those that belong to d.
func (c *Controller) claim(ctx context.Context, d *appsv1.Deployment) ([]*appsv1.ReplicaSet, error) {
	selector, err := metav1.LabelSelectorAsSelector(d.Spec.Selector)
	if err != nil {
		return nil, reconcile.Final(fmt.Errorf("selector: %w", err))
	}
	candidates, err := owner.Candidates[*appsv1.ReplicaSet](c.setIndex, d)
	if err != nil {
		return nil, err
	}
	return owner.Carry(ctx, d, owner.Decide(d, selector, candidates), owner.Access[*appsv1.ReplicaSet]{
		Kind: kind,
		Fresh: func(ctx context.Context) (metav1.Object, error) {
			return c.client.AppsV1().Deployments(d.Namespace).Get(ctx, d.Name, metav1.GetOptions{})
		},
		Patch: func(ctx context.Context, rs *appsv1.ReplicaSet, patch []byte) error {
			_, err := c.client.AppsV1().ReplicaSets(rs.Namespace).Patch(ctx, rs.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{})
			return err
		},
	})
}

// livePods counts the pods that may still run, by ReplicaSet UID. Only the
// strategy Recreate asks.
func (c *Controller) livePods(d *appsv1.Deployment, sets []*appsv1.ReplicaSet) map[string]int {
	if isRolling(d) {
		return nil
	}
	live := map[string]int{}
	for _, rs := range sets {
		pods, err := owner.Children[*corev1.Pod](c.podIndex, rs.UID)
		if err != nil {
			continue
		}
		for _, pod := range pods {
			if mayRun(pod) {
				live[string(rs.UID)]++
			}
		}
	}
	return live
}
