// Package queue holds the pods that wait for a node, in three places:
//
//   - active: to be tried now, highest priority first, then longest waiting;
//   - backing off: tried a short while ago without success, to be tried when
//     their delay is over;
//   - unschedulable: fitted nowhere; they wait for a change of the cluster that
//     may help (model.Change), so that a hopeless pod costs nothing.
//
// No change is lost between the moment a decision is made and the moment its
// pod arrives here: Failed compares what changed since the pod was popped.
package queue

import (
	"container/heap"
	"context"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"lighter.dev/lighter/controller/scheduler/model"
)

const (
	// firstDelay follows a first failure and doubles up to lastDelay.
	firstDelay = 250 * time.Millisecond
	lastDelay  = 10 * time.Second
	// patience is after how long an unschedulable pod is tried again though
	// nothing seems to have changed.
	patience = time.Minute
)

// Item is a waiting pod.
type Item struct {
	pod      *model.Pod
	since    time.Time // when it was first queued
	failures int
	ready    time.Time    // end of its delay
	hope     model.Change // what may help it
	popped   uint64       // sequence number of the last change before it was popped
	place    place
	index    int // in its heap
}

type place int

const (
	inFlight place = iota // popped, not yet decided
	active
	backingOff
	unschedulable
)

// Queue is safe for concurrent use, with one consumer.
type Queue struct {
	mu       sync.Mutex
	now      func() time.Time
	items    map[types.UID]*Item
	active   activeHeap
	backing  backoffHeap
	waiting  map[types.UID]*Item // the unschedulable ones
	sequence uint64
	changed  [model.Changes]uint64 // sequence number of the last change of each kind
	flushed  time.Time
	wake     chan struct{}
}

// New returns an empty queue. now is the clock, time.Now outside of tests.
func New(now func() time.Time) *Queue {
	return &Queue{
		now: now, items: map[types.UID]*Item{}, waiting: map[types.UID]*Item{},
		flushed: now(), wake: make(chan struct{}, 1),
	}
}

// Add queues a pod, or takes over the new state of one that is queued. A pod
// whose specification or labels changed is tried at once.
func (q *Queue) Add(pod *model.Pod) {
	q.mu.Lock()
	defer q.mu.Unlock()
	item := q.items[pod.UID]
	if item == nil {
		item = &Item{since: q.now()}
		q.items[pod.UID] = item
	} else {
		q.take(item)
	}
	item.pod, item.failures = pod, 0
	q.put(item, active)
}

// Touch takes over a new state that matters to no decision, such as a status.
func (q *Queue) Touch(object *corev1.Pod) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if item := q.items[object.UID]; item != nil {
		touched := *item.pod // the old one may be in use by the consumer
		touched.Object = object
		item.pod = &touched
	}
}

// Forget drops a pod: it is on a node, or gone.
func (q *Queue) Forget(uid types.UID) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if item := q.items[uid]; item != nil {
		q.take(item)
		delete(q.items, uid)
	}
}

// Pop waits for a pod to try; false means that ctx ended. The pod remains known
// until Forget, and must be given back by Failed if it is not placed.
func (q *Queue) Pop(ctx context.Context) (*Item, *model.Pod, bool) {
	for {
		item, pod, wait := q.next()
		if item != nil {
			return item, pod, true
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil, nil, false
		case <-q.wake:
			timer.Stop()
		case <-timer.C:
		}
	}
}

// next pops the first active pod, or tells how long to wait for one.
func (q *Queue) next() (*Item, *model.Pod, time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := q.now()
	for len(q.backing) > 0 && !q.backing[0].ready.After(now) {
		item := q.backing[0]
		q.take(item)
		q.put(item, active)
	}
	if now.Sub(q.flushed) >= patience {
		q.flushed = now
		for _, item := range q.waiting {
			q.retry(item)
		}
	}
	if len(q.active) > 0 {
		item := q.active[0]
		q.take(item)
		item.popped = q.sequence
		return item, item.pod, 0
	}
	wait := q.flushed.Add(patience).Sub(now)
	if len(q.backing) > 0 {
		wait = min(wait, q.backing[0].ready.Sub(now))
	}
	return nil, nil, wait
}

// Failed gives a pod back that could not be placed. hope says what may help; 0
// means that it is worth trying again after a delay (the attempt failed for
// another reason than the cluster's state).
func (q *Queue) Failed(item *Item, hope model.Change) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.items[item.pod.UID] != item || item.place != inFlight {
		return // deleted, or changed and queued again, in the meantime
	}
	item.failures++
	item.hope = hope
	delay := lastDelay
	if shift := item.failures - 1; shift < 10 {
		delay = min(lastDelay, firstDelay<<shift)
	}
	item.ready = q.now().Add(delay)
	helped := hope == 0
	for kind, sequence := range q.changed {
		helped = helped || hope&(1<<kind) != 0 && sequence > item.popped
	}
	if helped {
		q.put(item, backingOff)
	} else {
		q.put(item, unschedulable)
	}
}

// Changed moves the pods that a change of the cluster may help.
func (q *Queue) Changed(change model.Change) {
	if change == 0 {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.sequence++
	for kind := range q.changed {
		if change&(1<<kind) != 0 {
			q.changed[kind] = q.sequence
		}
	}
	for _, item := range q.waiting {
		if item.hope&change != 0 {
			q.retry(item)
		}
	}
}

// Len counts the pods in each place, for logs and tests.
func (q *Queue) Len() (activePods, backingOffPods, unschedulablePods int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.active), len(q.backing), len(q.waiting)
}

// retry moves an unschedulable pod on; its delay counts from its last attempt.
func (q *Queue) retry(item *Item) {
	q.take(item)
	if item.ready.After(q.now()) {
		q.put(item, backingOff)
	} else {
		q.put(item, active)
	}
}

func (q *Queue) take(item *Item) {
	switch item.place {
	case active:
		heap.Remove(&q.active, item.index)
	case backingOff:
		heap.Remove(&q.backing, item.index)
	case unschedulable:
		delete(q.waiting, item.pod.UID)
	}
	item.place = inFlight
}

func (q *Queue) put(item *Item, to place) {
	item.place = to
	switch to {
	case active:
		heap.Push(&q.active, item)
	case backingOff:
		heap.Push(&q.backing, item)
	case unschedulable:
		q.waiting[item.pod.UID] = item
		return
	}
	select {
	case q.wake <- struct{}{}:
	default:
	}
}
