package image

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/flowcontrol"

	"lighter.dev/lighter/api/client/clientset"
	lighterinformers "lighter.dev/lighter/api/client/informers"
	imagelisters "lighter.dev/lighter/api/client/listers/api/v1alpha1"
	"lighter.dev/lighter/api/v1alpha1"
	"lighter.dev/lighter/controller/reconcile"
)

// Config is what the reconciler needs; all fields are required.
type Config struct {
	Client clientset.Interface
	Core   kubernetes.Interface
	// Build builds an Image through the API, with the files of its ConfigMap if it
	// has one, and returns nil when the Image's status says how it went. An error
	// says why it could not be tried to the end.
	Build func(ctx context.Context, image *v1alpha1.Image, files map[string][]byte) error
	// Commit asks a repository which commit its ref names.
	Commit           func(ctx context.Context, source *v1alpha1.GitSource) (string, error)
	Informers        informers.SharedInformerFactory
	LighterInformers lighterinformers.SharedInformerFactory
	Recorder         record.EventRecorder
	Log              *slog.Logger
}

// Controller reconciles all Images and picks their builders. It has two queues, as
// a build takes longer than the others' patience: runner keeps statuses true,
// buildRunner builds.
type Controller struct {
	client      clientset.Interface
	buildImage  func(ctx context.Context, image *v1alpha1.Image, files map[string][]byte) error
	recorder    record.EventRecorder
	log         *slog.Logger
	runner      *reconcile.Runner
	buildRunner *reconcile.Runner
	images      imagelisters.ImageLister
	nodes       corelisters.NodeLister
	builds      *builds
	configMaps  *configMaps
	commits     *commits
	firstSeen   *firstSeen
	backOff     *flowcontrol.Backoff
	now         func() time.Time
}

// New registers its informers and handlers with the factories, which the
// caller starts.
func New(cfg Config) (*Controller, error) {
	images := cfg.LighterInformers.Lighter().V1alpha1().Images()
	nodes := cfg.Informers.Core().V1().Nodes()
	c := &Controller{
		client:     cfg.Client,
		buildImage: cfg.Build,
		recorder:   cfg.Recorder,
		log:        cfg.Log.With("reconciler", "image"),
		images:     images.Lister(),
		nodes:      nodes.Lister(),
		builds:     newBuilds(time.Now),
		firstSeen:  newFirstSeen(time.Now),
		commits:    newCommits(cfg.Commit, time.Now),
		backOff:    flowcontrol.NewBackOff(firstRetry, lastRetry),
		now:        time.Now,
	}
	c.runner = reconcile.New("image", c.sync, cfg.Log)
	c.buildRunner = reconcile.New("image-build", c.syncBuild, cfg.Log)
	c.configMaps = newConfigMaps(cfg.Core, c.buildRunner.Enqueue)
	imageHandle, imageErr := images.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: c.follow, UpdateFunc: func(_, obj any) { c.follow(obj) }, DeleteFunc: c.unfollow,
	})
	buildHandle, buildErr := images.Informer().AddEventHandler(c.buildRunner.Handler())
	nodeHandle, nodeErr := nodes.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		UpdateFunc: func(old, obj any) {
			was, wasNode := old.(*corev1.Node)
			is, isNode := obj.(*corev1.Node)
			if wasNode && isNode && isReady(was) && !isReady(is) {
				c.wakeBuilding()
			}
		},
		DeleteFunc: func(any) { c.wakeBuilding() },
	})
	if err := errors.Join(imageErr, buildErr, nodeErr); err != nil {
		return nil, fmt.Errorf("image: watch: %w", err)
	}
	c.runner.WaitFor(imageHandle.HasSynced, nodeHandle.HasSynced)
	c.buildRunner.WaitFor(buildHandle.HasSynced, nodeHandle.HasSynced)
	return c, nil
}

// Run reconciles until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return c.runner.Run(ctx, 1) })
	group.Go(func() error { return c.buildRunner.Run(ctx, buildWorkers) })
	return group.Wait()
}

// follow notes who builds, also while Run does not run: servers that do not lead
// pick builders too.
func (c *Controller) follow(obj any) {
	if image, ok := obj.(*v1alpha1.Image); ok {
		c.builds.observe(image.Namespace+"/"+image.Name, builderNamed(image), isBuilding(image))
	}
	c.runner.EnqueueObject(obj)
}

func (c *Controller) unfollow(obj any) {
	if image, ok := reconcile.Object[*v1alpha1.Image](obj); ok {
		c.builds.forget(image.Namespace + "/" + image.Name)
	}
	c.runner.EnqueueObject(obj)
}

// wakeBuilding looks at the Images under construction: a node has failed, which
// is rare enough to read them all.
func (c *Controller) wakeBuilding() {
	images, err := c.images.List(labels.Everything())
	if err != nil {
		return
	}
	for _, image := range images {
		if isBuilding(image) {
			c.runner.EnqueueObject(image)
		}
	}
}

func isBuilding(image *v1alpha1.Image) bool {
	return meta.IsStatusConditionTrue(image.Status.Conditions, v1alpha1.ImageBuilding)
}

// sync is one pass over one Image.
func (c *Controller) sync(ctx context.Context, key string) error {
	namespace, name, err := cache.SplitMetaNamespaceKey(key)
	if err != nil {
		return reconcile.Final(err)
	}
	image, err := c.images.Images(namespace).Get(name)
	if apierrors.IsNotFound(err) {
		c.builds.forget(key)
		return nil
	}
	if err != nil {
		return fmt.Errorf("read image: %w", err)
	}
	c.builds.observe(key, builderNamed(image), isBuilding(image))
	if image.Spec.Source.Image != nil && image.DeletionTimestamp == nil {
		return c.tag(ctx, image)
	}
	builder := c.builds.last(key)
	node, err := c.nodes.Get(builder)
	lost := builder != "" && (apierrors.IsNotFound(err) || err == nil && !isReady(node))
	condition := correct(image, builder, lost)
	if condition == nil {
		return nil
	}
	return c.write(ctx, image, *condition)
}

func (c *Controller) write(ctx context.Context, image *v1alpha1.Image, condition metav1.Condition) error {
	changed := image.DeepCopy()
	condition.ObservedGeneration = image.Generation
	condition.LastTransitionTime = metav1.NewTime(c.now())
	meta.SetStatusCondition(&changed.Status.Conditions, condition)
	_, err := c.client.LighterV1alpha1().Images(image.Namespace).UpdateStatus(ctx, changed, metav1.UpdateOptions{})
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return nil // an agent wrote, or the Image is gone: the event leads back here
	}
	if err != nil {
		return fmt.Errorf("write status: %w", err)
	}
	c.log.Info("corrected an image's condition", "image", image.Namespace+"/"+image.Name, "condition", condition.Type, "reason", condition.Reason)
	if condition.Reason == v1alpha1.ReasonBuildCancelled {
		c.recorder.Event(changed, corev1.EventTypeWarning, condition.Reason, condition.Message)
	}
	return nil
}

// correct is the condition that has to be written because no agent will, nil if
// there is none.
func correct(image *v1alpha1.Image, builder string, builderLost bool) *metav1.Condition {
	switch {
	case image.DeletionTimestamp != nil:
		return nil
	case len(image.Status.Conditions) == 0:
		return &metav1.Condition{
			Type: v1alpha1.ImageBuilt, Status: metav1.ConditionUnknown, Reason: waiting(&image.Spec.Source),
			Message: "The image " + image.Missing() + ".",
		}
	case isBuilding(image) && builderLost:
		return &metav1.Condition{
			Type: v1alpha1.ImageBuilding, Status: metav1.ConditionFalse, Reason: v1alpha1.ReasonBuildCancelled,
			Message: fmt.Sprintf("Node %s was lost during the build: %s.", builder, again(&image.Spec.Source)),
		}
	}
	return nil
}

// waiting is the reason why an image of this source has no content yet.
func waiting(source *v1alpha1.ImageSource) string {
	switch {
	case source.BuiltByCluster():
		return v1alpha1.ReasonWaitingForBuilder
	case source.HasDockerfile():
		return v1alpha1.ReasonWaitingForContext
	}
	return v1alpha1.ReasonWaitingForContent
}

// again is what has to happen after a build that was cut off.
func again(source *v1alpha1.ImageSource) string {
	if source.BuiltByCluster() {
		return "the cluster starts it again"
	}
	return "run \"lighter apply -f\" again"
}

// builderWords find the builder in a message that an agent wrote.
var builderWords = regexp.MustCompile(`\bhost ([a-z0-9]([-a-z0-9.]*[a-z0-9])?) builds\b`)

// builderNamed is the node that the condition Building names, "" if none.
func builderNamed(image *v1alpha1.Image) string {
	condition := meta.FindStatusCondition(image.Status.Conditions, v1alpha1.ImageBuilding)
	if condition == nil || condition.Status != metav1.ConditionTrue {
		return ""
	}
	if found := builderWords.FindStringSubmatch(condition.Message); found != nil {
		return found[1]
	}
	return ""
}
