package queue

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"lighter.dev/lighter/controller/scheduler/model"
)

func pod(name string, priority int32) *model.Pod {
	return model.NewPod(&corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name)},
		Spec:       corev1.PodSpec{Priority: &priority},
	})
}

// pop fails the test if there is no pod to try within the time.
func pop(t *testing.T, q *Queue, within time.Duration) (*Item, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	item, p, ok := q.Pop(ctx)
	if !ok {
		return nil, ""
	}
	return item, p.Object.Name
}

func TestPriorityThenAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := New(time.Now)
		for _, p := range []*model.Pod{pod("low", 1), pod("first", 5), pod("second", 5), pod("high", 9)} {
			q.Add(p)
			time.Sleep(time.Millisecond)
		}
		for _, want := range []string{"high", "first", "second", "low"} {
			if _, got := pop(t, q, time.Second); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		}
	})
}

func TestUnschedulableWaitsForTheRightChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := New(time.Now)
		q.Add(pod("p", 0))
		item, _ := pop(t, q, time.Second)
		q.Failed(item, model.PodGone|model.NodeAdded)
		time.Sleep(lastDelay)
		q.Changed(model.PodHere | model.NodeLabels)
		if _, got := pop(t, q, time.Second); got != "" {
			t.Fatal("tried again after a change that cannot help")
		}
		q.Changed(model.PodGone)
		began := time.Now()
		if _, got := pop(t, q, time.Second); got != "p" || time.Since(began) != 0 {
			t.Errorf("got %q after %v, want p at once", got, time.Since(began))
		}
	})
}

func TestChangeDuringADecisionIsNotLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := New(time.Now)
		q.Add(pod("p", 0))
		item, _ := pop(t, q, time.Second)
		q.Changed(model.PodGone)
		q.Failed(item, model.PodGone)
		began := time.Now()
		if _, got := pop(t, q, time.Minute); got != "p" || time.Since(began) != firstDelay {
			t.Errorf("got %q after %v, want p after its first delay", got, time.Since(began))
		}
	})
}

func TestDelaysGrowAndHopelessPodsAreTriedNowAndThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := New(time.Now)
		q.Add(pod("p", 0))
		item, _ := pop(t, q, time.Second)
		for _, want := range []time.Duration{firstDelay, 2 * firstDelay, 4 * firstDelay} {
			q.Failed(item, 0)
			began := time.Now()
			if item, _ = pop(t, q, time.Minute); time.Since(began) != want {
				t.Errorf("tried again after %v, want %v", time.Since(began), want)
			}
		}
		for range 40 { // the shift must not overflow
			q.Failed(item, 0)
			item, _ = pop(t, q, time.Minute)
		}
		q.Failed(item, model.NodeLabels)
		began := time.Now()
		if _, got := pop(t, q, 2*patience); got != "p" || time.Since(began) > patience+lastDelay {
			t.Errorf("a hopeless pod: %q after %v", got, time.Since(began))
		}
	})
}

func TestForgottenAndChangedPods(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := New(time.Now)
		q.Add(pod("p", 0))
		item, _ := pop(t, q, time.Second)
		q.Forget("p")
		q.Failed(item, 0)
		if _, got := pop(t, q, time.Hour); got != "" {
			t.Error("a deleted pod comes back")
		}
		q.Add(pod("r", 0))
		item, _ = pop(t, q, time.Second)
		q.Failed(item, model.NodeLabels)
		q.Add(pod("r", 7)) // its specification changed
		item, got := pop(t, q, time.Second)
		if got != "r" || item.pod.Priority != 7 {
			t.Errorf("got %q with priority %d", got, item.pod.Priority)
		}
		q.Touch(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "r", ResourceVersion: "9"}})
		if item.pod.Object.ResourceVersion != "9" || item.pod.Priority != 7 {
			t.Error("the new state was not taken over")
		}
		if a, b, u := q.Len(); a+b+u != 0 {
			t.Errorf("%d, %d, %d pods are queued", a, b, u)
		}
	})
}
