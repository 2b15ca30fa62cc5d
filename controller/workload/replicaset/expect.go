package replicaset

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// patience is how long a write may stay invisible in the cache. It is reached
// only when the event is lost for good (the pod was created and deleted while
// the watch was down), and then costs this much latency.
const patience = 30 * time.Second

// expectations remember, by ReplicaSet, the pods that were created or deleted
// through the API and that the cache has not shown as such yet. While there are
// any, the number of pods in the cache is not to be trusted.
type expectations struct {
	mu      sync.Mutex
	pending map[types.UID]map[string]time.Time // owner → write → give up at
}

func newExpectations() *expectations {
	return &expectations{pending: map[types.UID]map[string]time.Time{}}
}

// created and deleted name a write: creations by pod name, known before the
// pod exists; deletions by UID.
func created(podName string) string   { return "create/" + podName }
func deleted(podUID types.UID) string { return "delete/" + string(podUID) }

// expect registers a write before it is sent.
func (e *expectations) expect(owner types.UID, write string, now time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.pending[owner] == nil {
		e.pending[owner] = map[string]time.Time{}
	}
	e.pending[owner][write] = now.Add(patience)
}

// settle forgets a write: the cache has shown it, or it failed.
func (e *expectations) settle(owner types.UID, write string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.pending[owner], write)
	if len(e.pending[owner]) == 0 {
		delete(e.pending, owner)
	}
}

// wait tells how long to wait for the cache at most; 0 means that it shows all
// writes of this owner.
func (e *expectations) wait(owner types.UID, now time.Time) time.Duration {
	e.mu.Lock()
	defer e.mu.Unlock()
	var longest time.Duration
	for write, giveUp := range e.pending[owner] {
		left := giveUp.Sub(now)
		if left <= 0 {
			delete(e.pending[owner], write)
		}
		longest = max(longest, left)
	}
	return longest
}

// forget drops everything about an owner that is gone.
func (e *expectations) forget(owner types.UID) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.pending, owner)
}
