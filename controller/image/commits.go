package image

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"lighter.dev/lighter/api/v1alpha1"
)

const (
	// failedPause is the least pause after a repository did not answer: one that hangs
	// keeps a worker from building.
	failedPause = time.Minute
	// reasonPollFailed is the Event of it.
	reasonPollFailed = "PollFailed"
)

// commits remembers what repositories answered. After a restart all are asked again.
type commits struct {
	ask func(ctx context.Context, source *v1alpha1.GitSource) (string, error)
	now func() time.Time

	mu     sync.Mutex
	byName map[string]answer
}

// answer is a commit, "" if there is none so far, for a generation of the Image. Its
// repository is asked again at next.
type answer struct {
	generation int64
	commit     string
	next       time.Time
}

func newCommits(ask func(context.Context, *v1alpha1.GitSource) (string, error), now func() time.Time) *commits {
	return &commits{ask: ask, now: now, byName: map[string]answer{}}
}

func (c *commits) get(image string) answer {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.byName[image]
}

func (c *commits) put(image string, a answer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.byName[image] = a
}

// forget drops an Image that was deleted or is not polled any more.
func (c *commits) forget(image string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.byName, image)
}

// poll is the commit that an Image would be built from, "" if nobody wants to know
// or the repository does not say. It asks when it is time, and comes back then.
func (c *Controller) poll(ctx context.Context, key string, image *v1alpha1.Image) string {
	if !image.Spec.Source.Polled() || image.DeletionTimestamp != nil {
		c.commits.forget(key)
		return ""
	}
	pause := image.Spec.Source.Git.PollInterval.Duration
	last := c.commits.get(key)
	if wait := last.next.Sub(c.now()); last.generation == image.Generation && wait > 0 {
		c.buildRunner.EnqueueAfter(key, wait)
		return last.commit
	}
	commit, err := c.commits.ask(ctx, image.Spec.Source.Git)
	if err != nil && ctx.Err() == nil {
		// What was built stays: a repository is away more often than it is gone.
		commit, pause = image.Status.ContextHash, max(pause, failedPause)
		c.recorder.Event(image, corev1.EventTypeWarning, reasonPollFailed, fmt.Sprintf("The repository does not say what to build; it is asked again in %s: %v", pause, err))
	}
	c.commits.put(key, answer{generation: image.Generation, commit: commit, next: c.now().Add(pause)})
	c.buildRunner.EnqueueAfter(key, pause)
	return commit
}
