package status

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	ktesting "k8s.io/client-go/testing"
)

type bench struct {
	*Manager
	client  *fake.Clientset
	pod     *corev1.Pod
	patches atomic.Int32
	fail    atomic.Bool
}

// withManager runs a Manager with one pod in the API, on fake time.
func withManager(t *testing.T, f func(t *testing.T, b *bench)) {
	synctest.Test(t, func(t *testing.T) {
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "default", UID: "u1", ResourceVersion: "1"},
			Status:     corev1.PodStatus{Phase: corev1.PodPending},
		}
		b := &bench{client: fake.NewClientset(pod.DeepCopy()), pod: pod}
		b.client.PrependReactor("patch", "pods", func(ktesting.Action) (bool, runtime.Object, error) {
			b.patches.Add(1)
			if b.fail.Load() {
				return true, nil, errors.New("connection refused")
			}
			return false, nil, nil
		})
		b.Manager = New(b.client, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			if err := b.Run(ctx); err != nil {
				t.Error(err)
			}
		}()
		f(t, b)
		cancel()
		<-done
	})
}

func (b *bench) inAPI(t *testing.T) corev1.PodStatus {
	t.Helper()
	pod, err := b.client.CoreV1().Pods("default").Get(t.Context(), "web", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return pod.Status
}

func phase(p corev1.PodPhase) corev1.PodStatus { return corev1.PodStatus{Phase: p} }

func TestPendingIsOvertaken(t *testing.T) {
	withManager(t, func(t *testing.T, b *bench) {
		began := time.Now()
		b.Set(b.pod, phase(corev1.PodPending))
		b.Set(b.pod, phase(corev1.PodRunning))
		if err := b.Flush(t.Context(), b.pod.UID); err != nil {
			t.Fatal(err)
		}
		if got := b.inAPI(t).Phase; got != corev1.PodRunning {
			t.Errorf("phase = %s", got)
		}
		time.Sleep(time.Second)
		if n := b.patches.Load(); n != 1 {
			t.Errorf("%d patches, want 1", n)
		}
		if time.Since(began) > time.Second {
			t.Errorf("took %v", time.Since(began))
		}
	})
}

func TestRetriesUntilTheAPIIsBack(t *testing.T) {
	withManager(t, func(t *testing.T, b *bench) {
		b.fail.Store(true)
		b.Set(b.pod, phase(corev1.PodRunning))
		time.Sleep(20 * time.Second)
		b.Set(b.pod, phase(corev1.PodSucceeded))
		b.fail.Store(false)
		time.Sleep(maxRetry + time.Second)
		if got := b.inAPI(t).Phase; got != corev1.PodSucceeded {
			t.Errorf("phase = %s", got)
		}
	})
}

func TestTerminalPhaseStays(t *testing.T) {
	withManager(t, func(t *testing.T, b *bench) {
		b.Set(b.pod, phase(corev1.PodFailed))
		b.Set(b.pod, phase(corev1.PodRunning))
		if err := b.Flush(t.Context(), b.pod.UID); err != nil {
			t.Fatal(err)
		}
		if got := b.inAPI(t).Phase; got != corev1.PodFailed {
			t.Errorf("phase = %s", got)
		}
	})
}

func TestForeignConditionsSurvive(t *testing.T) {
	withManager(t, func(t *testing.T, b *bench) {
		pod := b.pod.DeepCopy()
		pod.Status.Conditions = []corev1.PodCondition{{Type: "example.com/gate", Status: corev1.ConditionTrue}}
		if _, err := b.client.CoreV1().Pods("default").UpdateStatus(t.Context(), pod, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		b.Observe(pod)
		b.Set(pod, corev1.PodStatus{Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}})
		if err := b.Flush(t.Context(), pod.UID); err != nil {
			t.Fatal(err)
		}
		if got := b.inAPI(t).Conditions; len(got) != 2 {
			t.Errorf("conditions = %+v", got)
		}
	})
}

func TestLostStatusIsWrittenAgain(t *testing.T) {
	withManager(t, func(t *testing.T, b *bench) {
		b.Set(b.pod, phase(corev1.PodRunning))
		if err := b.Flush(t.Context(), b.pod.UID); err != nil {
			t.Fatal(err)
		}
		// The API was restored from an older copy.
		old := b.pod.DeepCopy()
		old.ResourceVersion = "9"
		if _, err := b.client.CoreV1().Pods("default").UpdateStatus(t.Context(), old, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		b.Observe(old)
		synctest.Wait()
		if got := b.inAPI(t).Phase; got != corev1.PodRunning {
			t.Errorf("phase = %s", got)
		}
	})
}

func TestDeleteMeansThisPod(t *testing.T) {
	withManager(t, func(t *testing.T, b *bench) {
		var opts metav1.DeleteOptions
		b.client.PrependReactor("delete", "pods", func(a ktesting.Action) (bool, runtime.Object, error) {
			opts = a.(ktesting.DeleteActionImpl).DeleteOptions
			return false, nil, nil
		})
		if err := b.Delete(t.Context(), b.pod); err != nil {
			t.Fatal(err)
		}
		if opts.GracePeriodSeconds == nil || *opts.GracePeriodSeconds != 0 || opts.Preconditions == nil || *opts.Preconditions.UID != "u1" {
			t.Errorf("options = %+v", opts)
		}
		if err := b.Delete(t.Context(), b.pod); err != nil {
			t.Errorf("a second delete: %v", err)
		}
		// A status that nobody can take is no reason to wait.
		b.Set(b.pod, phase(corev1.PodRunning))
		if err := b.Flush(t.Context(), b.pod.UID); err != nil {
			t.Error(err)
		}
	})
}
