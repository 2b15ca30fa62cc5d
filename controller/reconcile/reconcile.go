// Package reconcile runs level-triggered reconcilers: a queue of keys
// ("namespace/name", or "name" for cluster-wide objects), some workers, and one
// function that makes the world match the object of that key.
//
// The queue holds keys, never events: however often an object changes while it
// waits, it is reconciled once, from the newest state. One key is never worked
// on by two workers at a time. An event that is missed costs latency, never
// correctness, because a later one (or a retry) reads the same state.
//
//	runner := reconcile.New("replicaset", r.sync, log)
//	handle, _ := informer.AddEventHandler(runner.Handler())
//	runner.WaitFor(handle.HasSynced)
//	err := runner.Run(ctx, 4)
package reconcile

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
)

const (
	// firstRetry is the delay after a key's first failure; each further one
	// doubles it. Most failures are write conflicts, gone a moment later.
	firstRetry = 5 * time.Millisecond
	// lastRetry caps the delay, so that a cluster that was broken overnight
	// is repaired within this time once the cause is gone.
	lastRetry = 30 * time.Second
	// quietRetries is how many failures in a row are logged at debug level
	// only: the first few are usually races that heal by themselves.
	quietRetries = 3
)

// Func brings the object of one key into its wanted state. An error means
// "try again later", unless it is wrapped by Final.
type Func func(ctx context.Context, key string) error

// Runner is a keyed work queue with workers. Its zero value is not usable.
type Runner struct {
	name   string
	sync   Func
	log    *slog.Logger
	queue  workqueue.TypedRateLimitingInterface[string]
	synced []cache.InformerSynced
}

// New makes a runner; keys may be enqueued at once, work begins with Run. A
// runner whose Run is never called must be stopped with ShutDown.
func New(name string, sync func(ctx context.Context, key string) error, log *slog.Logger) *Runner {
	limiter := workqueue.NewTypedItemExponentialFailureRateLimiter[string](firstRetry, lastRetry)
	return &Runner{
		name:  name,
		sync:  sync,
		log:   log.With("reconciler", name),
		queue: workqueue.NewTypedRateLimitingQueue(limiter),
	}
}

// WaitFor makes Run wait until these caches are filled before any work starts.
// Call it before Run.
func (r *Runner) WaitFor(synced ...cache.InformerSynced) {
	r.synced = append(r.synced, synced...)
}

// Run works on keys until ctx ends, then returns nil once every worker has
// finished the key it held. A panic in Func is not caught: it ends the process
// with its stack, and the restarted process begins from the state in the API.
func (r *Runner) Run(ctx context.Context, workers int) error {
	defer r.queue.ShutDown()
	if !cache.WaitForCacheSync(ctx.Done(), r.synced...) {
		return nil // WaitForCacheSync gives up only because ctx ended
	}
	r.log.Info("reconciler started", "workers", workers)
	var group sync.WaitGroup
	for range max(1, workers) {
		group.Go(func() {
			for r.next(ctx) {
			}
		})
	}
	<-ctx.Done()
	r.queue.ShutDown()
	group.Wait()
	return nil
}

// ShutDown stops the queue of a runner that is never run.
func (r *Runner) ShutDown() { r.queue.ShutDown() }

// next takes one key and reconciles it; false means the queue was shut down.
func (r *Runner) next(ctx context.Context) bool {
	key, stopped := r.queue.Get()
	if stopped || ctx.Err() != nil {
		return false
	}
	defer r.queue.Done(key)
	r.settle(ctx, key, r.sync(ctx, key))
	return true
}

// settle decides what follows from the result of one reconciliation.
func (r *Runner) settle(ctx context.Context, key string, err error) {
	var final *finalError
	switch {
	case err == nil:
		r.queue.Forget(key)
	case ctx.Err() != nil:
		// Shutting down: the next process starts from the API's state.
	case errors.As(err, &final):
		r.queue.Forget(key)
		r.log.Error("giving up until the object changes", "key", key, "error", err)
	default:
		failures := r.queue.NumRequeues(key) + 1
		level := slog.LevelWarn
		if failures <= quietRetries || apierrors.IsConflict(err) {
			level = slog.LevelDebug
		}
		r.log.Log(ctx, level, "reconciliation failed, will retry", "key", key, "failures", failures, "error", err)
		r.queue.AddRateLimited(key)
	}
}

// Enqueue asks for a reconciliation of key as soon as a worker is free.
func (r *Runner) Enqueue(key string) { r.queue.Add(key) }

// EnqueueAfter asks for a reconciliation of key after delay; it is how a
// reconciler waits for time to pass. The earliest request of a key wins.
func (r *Runner) EnqueueAfter(key string, delay time.Duration) { r.queue.AddAfter(key, delay) }

// EnqueueObject enqueues the key of an object as informers hand it out,
// including the tombstone of an object whose deletion was missed.
func (r *Runner) EnqueueObject(obj any) {
	key, err := cache.DeletionHandlingMetaNamespaceKeyFunc(obj)
	if err != nil {
		r.log.Error("event of something that is no API object", "type", fmt.Sprintf("%T", obj), "error", err)
		return
	}
	r.Enqueue(key)
}

// Handler enqueues every object that is added, changed or deleted.
func (r *Runner) Handler() cache.ResourceEventHandler {
	return cache.ResourceEventHandlerFuncs{
		AddFunc:    r.EnqueueObject,
		UpdateFunc: func(_, obj any) { r.EnqueueObject(obj) },
		DeleteFunc: r.EnqueueObject,
	}
}

// finalError marks an error that a retry cannot heal.
type finalError struct{ error }

// Unwrap keeps errors.Is and errors.As working through the mark.
func (e *finalError) Unwrap() error { return e.error }

// Final marks err as one that only a change of the object can heal: it is
// logged once and not retried. Final(nil) is nil.
func Final(err error) error {
	if err == nil {
		return nil
	}
	return &finalError{err}
}

// Object returns the object of an informer's delete event, looking through the
// tombstone that stands for it when the deletion itself was missed. ok is false
// if it is no T.
func Object[T any](obj any) (typed T, ok bool) {
	if tombstone, dead := obj.(cache.DeletedFinalStateUnknown); dead {
		obj = tombstone.Obj
	}
	typed, ok = obj.(T)
	return typed, ok
}
