package reconcile

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func TestRetriesUntilItWorksThenForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var calls atomic.Int32
		runner := New("test", func(context.Context, string) error {
			if calls.Add(1) < 4 {
				return errors.New("not yet")
			}
			return nil
		}, quiet())
		done := make(chan error)
		go func() { done <- runner.Run(ctx, 2) }()
		runner.Enqueue("ns/name")
		time.Sleep(time.Minute)
		if got := calls.Load(); got != 4 {
			t.Errorf("reconciled %d times, want 4", got)
		}
		if got := runner.queue.NumRequeues("ns/name"); got != 0 {
			t.Errorf("back-off still counts %d failures after a success", got)
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

func TestFinalErrorIsLoggedOnceAndNotRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var logged bytes.Buffer
		var calls atomic.Int32
		cause := errors.New("selector matches nothing")
		runner := New("test", func(context.Context, string) error {
			calls.Add(1)
			return Final(cause)
		}, slog.New(slog.NewTextHandler(&logged, nil)))
		done := make(chan error)
		go func() { done <- runner.Run(ctx, 1) }()
		runner.Enqueue("ns/name")
		time.Sleep(time.Hour)
		cancel()
		<-done
		if calls.Load() != 1 {
			t.Errorf("reconciled %d times, want 1", calls.Load())
		}
		if n := strings.Count(logged.String(), "selector matches nothing"); n != 1 {
			t.Errorf("logged %d lines, want 1:\n%s", n, logged.String())
		}
		if !errors.Is(Final(cause), cause) || Final(nil) != nil {
			t.Error("Final hides its cause, or makes an error of nil")
		}
	})
}

func TestBackOffIsCapped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var last time.Time
		var gap time.Duration
		runner := New("test", func(context.Context, string) error {
			gap, last = time.Since(last), time.Now()
			return errors.New("never")
		}, quiet())
		done := make(chan error)
		go func() { done <- runner.Run(ctx, 1) }()
		runner.Enqueue("k")
		time.Sleep(time.Hour)
		cancel()
		<-done
		if gap != lastRetry {
			t.Errorf("after an hour of failures the retry came after %v, want %v", gap, lastRetry)
		}
	})
}

func TestOneKeyIsNeverWorkedOnTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var running, calls atomic.Int32
		runner := New("test", func(context.Context, string) error {
			if running.Add(1) > 1 {
				t.Error("two workers hold the same key")
			}
			time.Sleep(time.Second)
			running.Add(-1)
			calls.Add(1)
			return nil
		}, quiet())
		done := make(chan error)
		go func() { done <- runner.Run(ctx, 4) }()
		for range 10 {
			runner.Enqueue("same")
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(time.Minute)
		cancel()
		<-done
		if got := calls.Load(); got != 2 {
			t.Errorf("ten events in one second of work made %d reconciliations, want 2", got)
		}
	})
}

func TestWaitsForCaches(t *testing.T) {
	var filled, ran atomic.Bool
	ctx, cancel := context.WithCancel(t.Context())
	runner := New("test", func(context.Context, string) error {
		if !filled.Load() {
			t.Error("worked before the cache was filled")
		}
		ran.Store(true)
		cancel()
		return nil
	}, quiet())
	runner.WaitFor(filled.Load)
	runner.Enqueue("k")
	time.AfterFunc(20*time.Millisecond, func() { filled.Store(true) })
	if err := runner.Run(ctx, 1); err != nil || !ran.Load() {
		t.Errorf("Run: %v, ran %v", err, ran.Load())
	}
}

func TestObjectsAndTombstones(t *testing.T) {
	runner := New("test", nil, quiet())
	defer runner.ShutDown()
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "a"}}
	runner.EnqueueObject(pod)
	runner.EnqueueObject(cache.DeletedFinalStateUnknown{Key: "ns/b", Obj: pod})
	runner.EnqueueObject(42)
	if got := runner.queue.Len(); got != 2 {
		t.Errorf("%d keys queued, want 2", got)
	}
	if got, ok := Object[*corev1.Pod](cache.DeletedFinalStateUnknown{Obj: pod}); !ok || got != pod {
		t.Error("tombstone not looked through")
	}
	if _, ok := Object[*corev1.Node](pod); ok {
		t.Error("a pod passed as a node")
	}
}
