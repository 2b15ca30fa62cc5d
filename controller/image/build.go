package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"lighter.dev/lighter/api/v1alpha1"
	"lighter.dev/lighter/controller/reconcile"
)

const (
	// buildWorkers is how many builds the cluster asks for at a time. Hosts have
	// limits of their own.
	buildWorkers = 8
	// clientGrace is how long a client that has made or changed an Image has for
	// starting its build itself, with credentials and secrets that the cluster
	// does not have ("lighter build").
	clientGrace = time.Second
	// firstRetry and lastRetry bound the pause after a try that came to nothing: no
	// host could build, or the one that did was lost.
	firstRetry, lastRetry = time.Second, time.Minute
)

// buildContext is what an Image is built from besides what its spec says.
type buildContext struct {
	// files are those of spec.source.configMap, by name, and hash is theirs, or the
	// commit of a repository that is polled.
	files map[string][]byte
	hash  string
	// missing says why it cannot be built yet, "" if it can.
	missing string
}

// needsBuild tells whether the cluster has to build an Image now. A build that
// failed is not repeated before something is different; one that was cut off is,
// and one that had no base to build on: nobody tells when there is one.
func needsBuild(image *v1alpha1.Image, hash string) bool {
	if image.DeletionTimestamp != nil || !image.Spec.Source.BuiltByCluster() || isBuilding(image) {
		return false
	}
	built := meta.FindStatusCondition(image.Status.Conditions, v1alpha1.ImageBuilt)
	switch {
	case built == nil || built.Status == metav1.ConditionUnknown:
		return true
	case built.ObservedGeneration < image.Generation,
		built.Reason == v1alpha1.ReasonBuildCancelled, built.Reason == v1alpha1.ReasonBaseUnavailable:
		return true
	}
	follows := image.Spec.Source.ConfigMap != nil || image.Spec.Source.Polled() && hash != ""
	return follows && hash != image.Status.ContextHash
}

// syncBuild builds one Image if it has to be built, and returns when that is over.
// The queue has one worker at a time on an Image.
func (c *Controller) syncBuild(ctx context.Context, key string) error {
	namespace, name, err := cache.SplitMetaNamespaceKey(key)
	if err != nil {
		return reconcile.Final(err)
	}
	image, err := c.images.Images(namespace).Get(name)
	if apierrors.IsNotFound(err) {
		c.configMaps.drop(key)
		c.firstSeen.forget(key)
		c.commits.forget(key)
		return nil
	}
	if err != nil {
		return fmt.Errorf("read image: %w", err)
	}
	from, known := c.contextOf(ctx, key, image)
	if !known || !needsBuild(image, from.hash) {
		return nil
	}
	if from.missing != "" {
		return c.explain(ctx, image, v1alpha1.ReasonWaitingForContext, from.missing)
	}
	if wait := c.wait(key, image.Generation); wait > 0 {
		c.buildRunner.EnqueueAfter(key, wait)
		return nil
	}
	// The cache may be older than the end of the last build.
	image, err = c.client.LighterV1alpha1().Images(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil || !needsBuild(image, from.hash) {
		return ignoreNotFound(err)
	}
	return c.build(ctx, key, image, from)
}

// wait is how long the build of a generation has to wait: for a client, or after
// a try that came to nothing.
func (c *Controller) wait(key string, generation int64) time.Duration {
	attempt, now := attemptOf(key, generation), c.now()
	if c.backOff.IsInBackOffSinceUpdate(attempt, now) {
		return c.backOff.Get(attempt)
	}
	return clientGrace - c.firstSeen.since(key, generation)
}

// attemptOf is the key of back-offs: a new generation is tried at once.
func attemptOf(key string, generation int64) string { return fmt.Sprintf("%s@%d", key, generation) }

func (c *Controller) build(ctx context.Context, key string, image *v1alpha1.Image, from buildContext) error {
	attempt := attemptOf(key, image.Generation)
	c.log.Info("building an image", "image", key, "generation", image.Generation, "source", image.Spec.Source.Describe())
	err := c.buildImage(ctx, image, from.files)
	if err == nil {
		err = c.settle(ctx, image, from.hash)
	}
	switch {
	case err == nil:
		c.backOff.Reset(attempt)
		return nil
	case ctx.Err() != nil || apierrors.IsNotFound(err):
		return ignoreNotFound(err) // this process ends, or the Image is gone
	}
	c.backOff.GC()
	c.backOff.Next(attempt, c.now())
	c.buildRunner.EnqueueAfter(key, c.backOff.Get(attempt))
	c.log.Warn("build not done, will retry", "image", key, "in", c.backOff.Get(attempt), "error", err)
	if errors.Is(err, errUnsettled) {
		return nil // the agent has said more
	}
	why := fmt.Sprintf("The cluster could not build it, and will try again: %v", err)
	c.recorder.Event(image, corev1.EventTypeWarning, v1alpha1.ReasonWaitingForBuilder, why)
	return c.explain(ctx, image, v1alpha1.ReasonWaitingForBuilder, why)
}

// errUnsettled: a build has ended, and it is to be tried again.
var errUnsettled = errors.New("it ended without a result that can stay")

// settle writes down of which files a build was that has ended, by itself in a
// patch: the agent writes the rest of the status. It is an error if that says that
// another try is needed, or nothing.
func (c *Controller) settle(ctx context.Context, image *v1alpha1.Image, hash string) error {
	images := c.client.LighterV1alpha1().Images(image.Namespace)
	if hash != image.Status.ContextHash {
		patch, err := json.Marshal(map[string]any{"status": map[string]any{"contextHash": hash}})
		if err != nil {
			return err
		}
		if _, err := images.Patch(ctx, image.Name, types.MergePatchType, patch, metav1.PatchOptions{}, "status"); err != nil {
			return fmt.Errorf("write status: %w", err)
		}
	}
	after, err := images.Get(ctx, image.Name, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("read image: %w", err)
	}
	// A later generation is work for the next turn, not for a retry.
	if after.Generation == image.Generation && needsBuild(after, hash) {
		return errUnsettled
	}
	return nil
}

// explain says in the condition Built why nothing was built so far. If something
// was, the condition tells of that.
func (c *Controller) explain(ctx context.Context, image *v1alpha1.Image, reason, message string) error {
	built := meta.FindStatusCondition(image.Status.Conditions, v1alpha1.ImageBuilt)
	if built != nil && (built.Status != metav1.ConditionUnknown || built.Reason == reason && built.Message == message) {
		return nil
	}
	return c.write(ctx, image, metav1.Condition{Type: v1alpha1.ImageBuilt, Status: metav1.ConditionUnknown, Reason: reason, Message: message})
}

// contextOf reads what an Image is built from. known is false until the API has
// told; the Image is then woken.
func (c *Controller) contextOf(ctx context.Context, key string, image *v1alpha1.Image) (result buildContext, known bool) {
	source := image.Spec.Source.ConfigMap
	if source == nil {
		c.configMaps.drop(key)
		return buildContext{hash: c.poll(ctx, key, image)}, true
	}
	configMap, known := c.configMaps.get(ctx, key, image.Namespace, source.Name)
	if !known {
		return buildContext{}, false
	}
	return contextFrom(configMap, source.Name, image.Spec.Dockerfile), true
}

// contextFrom makes files of a ConfigMap, nil if there is none.
func contextFrom(configMap *corev1.ConfigMap, name, dockerfile string) buildContext {
	if configMap == nil {
		return buildContext{missing: fmt.Sprintf("There is no ConfigMap %q to build the image from: create it.", name)}
	}
	var result buildContext
	result.files, result.hash = v1alpha1.ContextOf(configMap)
	if _, ok := result.files[dockerfile]; !ok {
		result.missing = fmt.Sprintf("ConfigMap %q has no key %q: add it, or name another one in spec.dockerfile.", name, dockerfile)
	}
	return result
}

func ignoreNotFound(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
