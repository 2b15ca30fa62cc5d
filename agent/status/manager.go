// Package status tells the API server how this node's pods do.
//
// Compute is the pure part: container states in, phase and conditions out.
// Manager is the writer. It is the only writer of the status of this node's
// pods; writes are coalesced per pod (only the newest wish counts), retried
// until they succeed, and never wait in the way of starting a container.
// A first "Pending" is held back for a moment, because most pods are Running
// before anybody could read it.
package status

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/util/workqueue"

	"lighter.dev/lighter/api/v1alpha1"
)

const (
	// pendingDelay is how long a status that only says "not yet" may wait to be
	// overtaken by a better one: also in a burst of pods, most never need it.
	pendingDelay = time.Second
	minRetry     = 50 * time.Millisecond
	// maxRetry is how long after an outage a status may still be an old one.
	maxRetry = 5 * time.Second
	// writers write the status of different pods at the same time.
	writers = 4
)

// Manager writes pod status. Its methods do not block on the API, but for
// Flush and Delete.
type Manager struct {
	client kubernetes.Interface
	log    *slog.Logger
	queue  workqueue.TypedRateLimitingInterface[types.UID]

	mu   sync.Mutex
	pods map[types.UID]*entry
}

// entry is one pod's newest wish and what the API has.
type entry struct {
	api    *corev1.Pod // as last seen
	wanted *corev1.PodStatus
	seq    uint64 // of wanted
	sent   uint64 // the API has it
	gone   bool   // deleted, or replaced by a namesake
	waiter []chan struct{}
}

// New makes a Manager; Run makes it work.
func New(client kubernetes.Interface, log *slog.Logger) *Manager {
	return &Manager{
		client: client, log: log,
		queue: workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[types.UID](minRetry, maxRetry)),
		pods:  map[types.UID]*entry{},
	}
}

// Run writes until ctx ends.
func (m *Manager) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, m.queue.ShutDown)
	defer stop()
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for m.next(ctx) {
			}
		})
	}
	wg.Wait()
	return nil
}

func (m *Manager) next(ctx context.Context) bool {
	uid, shutdown := m.queue.Get()
	if shutdown {
		return false
	}
	defer m.queue.Done(uid)
	if err := m.write(ctx, uid); err != nil {
		if ctx.Err() == nil {
			m.log.Warn("Cannot write pod status, will retry", "pod", uid, "err", err, "attempt", m.queue.NumRequeues(uid)+1)
			m.queue.AddRateLimited(uid)
		}
		return true
	}
	m.queue.Forget(uid)
	return true
}

// Observe takes note of a version of the pod that came from the API. If it
// lacks what was wanted, it is written again.
func (m *Manager) Observe(pod *corev1.Pod) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.record(pod.UID)
	if r.api != nil && older(pod, r.api) {
		return
	}
	r.api = pod
	if r.wanted != nil && r.sent == r.seq && behind(&pod.Status, r.wanted) {
		r.sent--
		m.queue.Add(pod.UID)
	}
}

// Set says what the status should be now. It replaces an earlier wish that was
// not written yet, except that a terminal phase is never taken back.
func (m *Manager) Set(pod *corev1.Pod, wanted corev1.PodStatus) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.record(pod.UID)
	if r.api == nil {
		r.api = pod
	}
	if r.wanted != nil && terminal(r.wanted.Phase) && r.wanted.Phase != wanted.Phase {
		return
	}
	r.wanted = &wanted
	r.seq++
	if wanted.Phase == corev1.PodPending && !awaitsClient(wanted) && (r.api.Status.Phase == corev1.PodPending || r.api.Status.Phase == "") {
		m.queue.AddAfter(pod.UID, pendingDelay)
		return
	}
	m.queue.Add(pod.UID)
}

// Flush waits until the newest wish is written or the pod is gone.
func (m *Manager) Flush(ctx context.Context, uid types.UID) error {
	m.mu.Lock()
	r := m.pods[uid]
	if r == nil || r.gone || r.sent == r.seq {
		m.mu.Unlock()
		return nil
	}
	done := make(chan struct{})
	r.waiter = append(r.waiter, done)
	m.queue.Add(uid)
	m.mu.Unlock()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("write the last status: %w", ctx.Err())
	}
}

// Delete ends the pod's life in the API: grace period 0, and only this very
// pod (UID), not a namesake. A pod that is gone already is fine.
func (m *Manager) Delete(ctx context.Context, pod *corev1.Pod) error {
	opts := metav1.NewDeleteOptions(0)
	opts.Preconditions = metav1.NewUIDPreconditions(string(pod.UID))
	err := m.client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, *opts)
	if err == nil || apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	return fmt.Errorf("delete pod %s/%s: %w", pod.Namespace, pod.Name, err)
}

// Expire asks the API to delete the pod, this very one, with its own grace
// period: the agent then hears of it as of any deletion.
func (m *Manager) Expire(ctx context.Context, pod *corev1.Pod) error {
	opts := metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(pod.UID))}
	err := m.client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, opts)
	if err == nil || apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	return fmt.Errorf("delete pod %s/%s, whose container has ended: %w", pod.Namespace, pod.Name, err)
}

// Forget drops a pod that is gone.
func (m *Manager) Forget(uid types.UID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if r := m.pods[uid]; r != nil {
		r.wake()
	}
	delete(m.pods, uid)
}

func (m *Manager) record(uid types.UID) *entry {
	r := m.pods[uid]
	if r == nil {
		r = &entry{}
		m.pods[uid] = r
	}
	return r
}

func (r *entry) wake() {
	for _, done := range r.waiter {
		close(done)
	}
	r.waiter = nil
}

// write sends the newest wish of one pod.
func (m *Manager) write(ctx context.Context, uid types.UID) error {
	m.mu.Lock()
	r := m.pods[uid]
	if r == nil || r.gone || r.wanted == nil || r.sent == r.seq {
		m.mu.Unlock()
		return nil
	}
	api, wanted, seq := r.api, r.wanted, r.seq
	m.mu.Unlock()

	result, err := m.patch(ctx, api, wanted)
	gone := apierrors.IsNotFound(err) || errors.Is(err, errOtherPod)
	if err != nil && !gone {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	r.gone = gone
	if result != nil && !older(result, r.api) {
		r.api = result
	}
	if !gone {
		r.sent = seq
	}
	if gone || r.sent == r.seq {
		r.wake()
	} else {
		m.queue.Add(uid)
	}
	return nil
}

// awaitsClient: a client has to read it for the pod to go on.
func awaitsClient(st corev1.PodStatus) bool {
	return slices.ContainsFunc(st.ContainerStatuses, func(c corev1.ContainerStatus) bool {
		return c.State.Waiting != nil && c.State.Waiting.Reason == v1alpha1.ReasonAwaitsClient
	})
}

func terminal(p corev1.PodPhase) bool { return p == corev1.PodSucceeded || p == corev1.PodFailed }

// older compares versions of one object from the API.
func older(a, b *corev1.Pod) bool {
	order, err := resourceversion.CompareResourceVersion(a.ResourceVersion, b.ResourceVersion)
	return err == nil && order < 0
}

// behind tells whether the API lost something we wrote: it compares the fields
// whose loss would matter.
func behind(have, want *corev1.PodStatus) bool {
	if terminal(have.Phase) {
		return false
	}
	return have.Phase != want.Phase || have.PodIP != want.PodIP || readyIn(have) != readyIn(want)
}

func readyIn(st *corev1.PodStatus) corev1.ConditionStatus {
	for _, c := range st.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status
		}
	}
	return corev1.ConditionUnknown
}
