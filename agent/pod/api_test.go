package pod

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// apiDelete has another signature than Engine.Delete, so the world's API part
// is a type of its own.
type apiSide struct{ *world }

func (w apiSide) Delete(_ context.Context, pod *corev1.Pod) error {
	return w.do("api delete", func() error { w.deleted[pod.UID] = true; return nil })
}

func (w apiSide) Expire(_ context.Context, pod *corev1.Pod) error {
	return w.do("api expire", func() error { w.expired[pod.UID] = true; return nil })
}

const uid = types.UID("11111111-2222-3333-4444-555555555555")

// onePod has one container named main.
func onePod(change ...func(*corev1.Pod)) *corev1.Pod {
	pod := &corev1.Pod{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "default", UID: uid, Generation: 1},
		Spec: corev1.PodSpec{
			RestartPolicy: corev1.RestartPolicyAlways,
			Containers:    []corev1.Container{{Name: "main", Image: "web:v1"}},
		},
	}
	for _, f := range change {
		f(pod)
	}
	return pod
}

func withInit(pod *corev1.Pod) {
	always := corev1.ContainerRestartPolicyAlways
	pod.Spec.InitContainers = []corev1.Container{
		{Name: "first", Image: "web:v1"},
		{Name: "sidecar", Image: "web:v1", RestartPolicy: &always},
		{Name: "second", Image: "web:v1"},
	}
}

func withPolicy(p corev1.RestartPolicy) func(*corev1.Pod) {
	return func(pod *corev1.Pod) { pod.Spec.RestartPolicy = p }
}

func deleted(pod *corev1.Pod, grace int64) *corev1.Pod {
	pod = pod.DeepCopy()
	pod.DeletionTimestamp = &metav1.Time{Time: time.Now()}
	pod.DeletionGracePeriodSeconds = &grace
	return pod
}

// inBubble runs a test on fake time.
func inBubble(t *testing.T, f func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { f(t, newWorld(t)) })
}

// status is what the API was told last.
func (w *world) status() corev1.PodStatus {
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.statuses[uid]
}

func (w *world) empty(t *testing.T) {
	t.Helper()
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	if n := len(w.cgroups) + len(w.spaces) + len(w.attached) + len(w.volumes) + len(w.snapshots) + len(w.containers); n > 0 {
		t.Errorf("left behind: cgroups %v namespaces %v attached %v volumes %v snapshots %v containers %v", w.cgroups, w.spaces, w.attached, w.volumes, w.snapshots, w.containers)
	}
}

// isDeleted: the API has been told to let go of the pod.
func (w *world) isDeleted(uid types.UID) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.deleted[uid]
}
