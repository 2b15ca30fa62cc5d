// Package events records Events, which tell people what has happened to an object.
// Repeated ones are aggregated and limited as by every Kubernetes component; that
// is client-go's work. New here is that they give way: an Event is the least urgent
// of all writes, and a hundred pods that start at once make four hundred. Those of a
// burst are written when it is over, or after a short while.
package events

import (
	"context"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/flowcontrol"

	"lighter.dev/lighter/api/v1alpha1"
)

const (
	// promptEvents are written at once, and promptRate more each second.
	promptEvents = 10
	promptRate   = 5
	// lull is how long none has to be recorded for a burst to be over.
	lull = 200 * time.Millisecond
	// patience is the longest that an Event waits for that.
	patience = 2 * time.Second
)

// Events about our own kinds name them as the scheme does.
func init() { utilruntime.Must(v1alpha1.AddToScheme(scheme.Scheme)) }

// NewRecorder starts a recorder of Events that come from source. It stops with ctx.
func NewRecorder(ctx context.Context, client kubernetes.Interface, source corev1.EventSource) record.EventRecorder {
	return newRecorder(ctx, &typedcorev1.EventSinkImpl{Interface: client.CoreV1().Events("")}, source)
}

func newRecorder(ctx context.Context, sink record.EventSink, source corev1.EventSource) record.EventRecorder {
	broadcaster := record.NewBroadcaster(record.WithContext(ctx))
	paced := &pacedSink{EventSink: sink, ctx: ctx, prompt: flowcontrol.NewTokenBucketPassiveRateLimiter(promptRate, promptEvents)}
	broadcaster.StartEventWatcher(func(*corev1.Event) { paced.recorded() })
	broadcaster.StartRecordingToSink(paced)
	context.AfterFunc(ctx, broadcaster.Shutdown)
	return broadcaster.NewRecorder(scheme.Scheme, source)
}

// pacedSink writes Events, one after another.
type pacedSink struct {
	record.EventSink
	ctx    context.Context
	prompt flowcontrol.PassiveRateLimiter

	mu   sync.Mutex
	last time.Time // when the newest Event was recorded
}

func (s *pacedSink) recorded() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = time.Now()
}

// Create writes a new Event.
func (s *pacedSink) Create(event *corev1.Event) (*corev1.Event, error) {
	s.pace(event)
	return s.EventSink.Create(event)
}

// Patch writes that an Event has happened again.
func (s *pacedSink) Patch(event *corev1.Event, data []byte) (*corev1.Event, error) {
	s.pace(event)
	return s.EventSink.Patch(event, data)
}

// pace waits until an Event's time has come.
func (s *pacedSink) pace(event *corev1.Event) {
	if s.prompt.TryAccept() {
		return
	}
	for {
		left := min(time.Until(event.LastTimestamp.Add(patience)), time.Until(s.calm()))
		if left <= 0 {
			return
		}
		select {
		case <-time.After(left):
		case <-s.ctx.Done():
			return
		}
	}
}

// calm is when the burst is over if nothing follows.
func (s *pacedSink) calm() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last.Add(lull)
}
