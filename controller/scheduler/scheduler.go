package scheduler

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"

	"lighter.dev/lighter/controller/scheduler/fit"
	"lighter.dev/lighter/controller/scheduler/model"
	"lighter.dev/lighter/controller/scheduler/queue"
)

// writers is how many bindings and conditions are written at once.
const writers = 64

// Config is what the scheduler needs; all fields are required.
type Config struct {
	Client    kubernetes.Interface
	Informers informers.SharedInformerFactory
	Recorder  record.EventRecorder
	Log       *slog.Logger
}

// Scheduler gives pods nodes.
type Scheduler struct {
	client   kubernetes.Interface
	recorder record.EventRecorder
	log      *slog.Logger
	queue    *queue.Queue
	synced   []cache.InformerSynced
	slots    chan struct{} // bounds the writers
	writing  sync.WaitGroup

	mu      sync.Mutex // guards cluster; held while deciding
	cluster *model.Cluster

	// Of the loop only.
	start   int
	scratch fit.Scratch
}

// New registers its informers and handlers with the factory, which the caller
// starts.
func New(cfg Config) (*Scheduler, error) {
	s := &Scheduler{
		client:   cfg.Client,
		recorder: cfg.Recorder,
		log:      cfg.Log.With("component", "scheduler"),
		queue:    queue.New(time.Now),
		slots:    make(chan struct{}, writers),
		cluster:  model.NewCluster(),
	}
	core := cfg.Informers.Core().V1()
	var errs []error
	for _, watched := range []struct {
		informer cache.SharedIndexInformer
		handler  cache.ResourceEventHandler
	}{
		{core.Namespaces().Informer(), s.namespaceEvents()},
		{core.Nodes().Informer(), s.nodeEvents()},
		{core.Pods().Informer(), s.podEvents()},
	} {
		handle, err := watched.informer.AddEventHandler(watched.handler)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		s.synced = append(s.synced, handle.HasSynced)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("scheduler: watch: %w", err)
	}
	return s, nil
}

// Run schedules until ctx ends, then waits for the writes under way.
func (s *Scheduler) Run(ctx context.Context) error {
	if !cache.WaitForCacheSync(ctx.Done(), s.synced...) {
		return nil // ctx ended
	}
	s.log.Info("scheduler started")
	defer s.writing.Wait()
	for {
		item, pod, ok := s.queue.Pop(ctx)
		if !ok {
			return nil
		}
		s.one(ctx, item, pod)
	}
}

// one decides about one pod and has the decision written.
func (s *Scheduler) one(ctx context.Context, item *queue.Item, pod *model.Pod) {
	object := pod.Object // before the pod is shared with the cluster
	decision, skip := s.decide(pod)
	switch {
	case skip:
		// The event that it was placed, or the failure to place it, will
		// settle it.
	case decision.Failure != nil:
		s.write(func() { s.reportFailure(ctx, object, decision.Failure) })
		s.queue.Failed(item, decision.Failure.Hope)
	default:
		s.write(func() { s.bind(ctx, item, object, decision.Node) })
	}
}

// decide picks a node and assumes the pod there. skip is true if the pod is on a
// node already, or assumed to be.
func (s *Scheduler) decide(pod *model.Pod) (decision fit.Decision, skip bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, node := s.cluster.Placed(pod.UID); node != "" {
		return decision, true
	}
	decision = fit.Schedule(s.cluster, pod, s.start, &s.scratch)
	if n := len(s.cluster.Nodes); n > 0 {
		s.start = (s.start + decision.Examined) % n
	}
	if decision.Node != "" {
		s.cluster.Place(pod, decision.Node)
	}
	return decision, false
}

// write runs a write in its own goroutine, when a slot is free.
func (s *Scheduler) write(do func()) {
	s.slots <- struct{}{}
	s.writing.Go(func() {
		defer func() { <-s.slots }()
		do()
	})
}

// isOurs tells pods that this scheduler should place.
func isOurs(pod *corev1.Pod) bool {
	return pod.Spec.NodeName == "" && pod.DeletionTimestamp == nil && len(pod.Spec.SchedulingGates) == 0 &&
		pod.Spec.SchedulerName == corev1.DefaultSchedulerName && !hasEnded(pod)
}

// hasEnded tells pods that use nothing any more.
func hasEnded(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}
