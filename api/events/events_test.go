package events

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/record"
)

// journal notes when each Event is written.
type journal struct {
	mu      sync.Mutex
	began   time.Time
	written []time.Duration
}

func (j *journal) note(event *corev1.Event) (*corev1.Event, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.written = append(j.written, time.Since(j.began))
	return event, nil
}

func (j *journal) Create(event *corev1.Event) (*corev1.Event, error)          { return j.note(event) }
func (j *journal) Update(event *corev1.Event) (*corev1.Event, error)          { return j.note(event) }
func (j *journal) Patch(event *corev1.Event, _ []byte) (*corev1.Event, error) { return j.note(event) }

// TestPace records n Events, one each interval, about as many pods.
func TestPace(t *testing.T) {
	for name, test := range map[string]struct {
		n        int
		interval time.Duration
		// at says when the Event of a number has to be written, at the latest, and
		// whether that is the moment.
		at func(i int, recorded time.Duration) (time.Duration, bool)
	}{
		"a pod":        {4, 10 * time.Millisecond, func(_ int, recorded time.Duration) (time.Duration, bool) { return recorded, true }},
		"now and then": {50, time.Second, func(_ int, recorded time.Duration) (time.Duration, bool) { return recorded, true }},
		"a burst": {100, 5 * time.Millisecond, func(i int, recorded time.Duration) (time.Duration, bool) {
			if i < promptEvents {
				return recorded, true
			}
			return 99*5*time.Millisecond + lull, false
		}},
		"without end": {1000, 10 * time.Millisecond, func(_ int, recorded time.Duration) (time.Duration, bool) { return recorded + patience, false }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				j := &journal{began: time.Now()}
				r := newRecorder(ctx, j, corev1.EventSource{Component: "test"})
				for i := range test.n {
					r.Event(pod(i), corev1.EventTypeNormal, "Started", "it runs")
					time.Sleep(test.interval)
				}
				time.Sleep(time.Minute)
				j.mu.Lock()
				defer j.mu.Unlock()
				if len(j.written) != test.n {
					t.Fatalf("%d of %d are written", len(j.written), test.n)
				}
				late := 0
				for i, when := range j.written {
					recorded := time.Duration(i) * test.interval
					latest, exactly := test.at(i, recorded)
					if when > latest || exactly && when != latest {
						t.Errorf("number %d of %s is written at %s, want %s", i, recorded, when, latest)
					}
					if when > recorded {
						late++
					}
				}
				t.Logf("%d of %d gave way", late, test.n)
			})
		})
	}
}

// TestStop: the end of the context ends a wait.
func TestStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		r := newRecorder(ctx, &journal{began: time.Now()}, corev1.EventSource{Component: "test"})
		for i := range 2 * promptEvents {
			r.Event(pod(i), corev1.EventTypeNormal, "Started", "it runs")
		}
		synctest.Wait()
		cancel()
	})
}

var _ record.EventSink = &journal{}

func pod(i int) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: fmt.Sprint("pod-", i), UID: "u"}}
}
