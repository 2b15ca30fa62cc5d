package main

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
)

// podWatch follows the pods; only until reads events, so the time at which a
// condition becomes true is the time at which until returns.
type podWatch struct {
	bench  *bench
	events watch.Interface
	pods   map[string]*corev1.Pod // by UID
}

// watch begins with the pods that there are.
func (b *bench) watch(ctx context.Context) (*podWatch, error) {
	w := &podWatch{bench: b}
	return w, w.begin(ctx)
}

func (w *podWatch) begin(ctx context.Context) error {
	api := w.bench.client.CoreV1().Pods(namespace)
	list, err := api.List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	w.pods = map[string]*corev1.Pod{}
	for i := range list.Items {
		w.pods[string(list.Items[i].UID)] = &list.Items[i]
	}
	w.events, err = api.Watch(ctx, metav1.ListOptions{ResourceVersion: list.ResourceVersion})
	return err
}

func (w *podWatch) stop() {
	if w.events != nil {
		w.events.Stop()
	}
}

// count tells how many pods a condition is true for.
func (w *podWatch) count(is func(*corev1.Pod) bool) int {
	n := 0
	for _, pod := range w.pods {
		if is(pod) {
			n++
		}
	}
	return n
}

// running counts pods that are, and are to stay, Running.
func (w *podWatch) running() int {
	return w.count(func(pod *corev1.Pod) bool {
		return pod.Status.Phase == corev1.PodRunning && pod.DeletionTimestamp == nil
	})
}

// on counts the pods on a host that are to stay.
func (w *podWatch) on(host string) int {
	return w.count(func(pod *corev1.Pod) bool { return pod.Spec.NodeName == host && pod.DeletionTimestamp == nil })
}

// doomed counts the pods that are being deleted.
func (w *podWatch) doomed() int {
	return w.count(func(pod *corev1.Pod) bool { return pod.DeletionTimestamp != nil })
}

// until reads events until a condition on w.pods is true.
func (w *podWatch) until(ctx context.Context, what string, done func() bool) error {
	late := time.NewTimer(2 * time.Minute)
	defer late.Stop()
	for !done() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait until %s: %w", what, ctx.Err())
		case <-late.C:
			return fmt.Errorf("in vain for 2 min: %s; there are %d pods, %d Running", what, len(w.pods), w.running())
		case event, ok := <-w.events.ResultChan():
			pod, isPod := event.Object.(*corev1.Pod)
			switch {
			case !ok || !isPod:
				// The API server ends watches whenever it likes; on a busy machine
				// it does when a client is slow to read.
				if err := w.begin(ctx); err != nil {
					return fmt.Errorf("wait until %s: %w", what, err)
				}
			case event.Type == watch.Deleted:
				delete(w.pods, string(pod.UID))
			default:
				w.pods[string(pod.UID)] = pod
			}
		}
	}
	return nil
}
