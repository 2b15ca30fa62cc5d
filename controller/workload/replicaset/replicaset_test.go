package replicaset

import (
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/record"

	"lighter.dev/lighter/controller/reconcile/reconciletest"
)

// start runs the reconciler against a fake API.
func start(t *testing.T, objects ...runtime.Object) *fake.Clientset {
	client := fake.NewClientset(objects...)
	reconciletest.Versioned(client, appsv1.SchemeGroupVersion.WithResource("replicasets"), func(to, from *appsv1.ReplicaSet) { to.Status = from.Status }, nil)
	var uids atomic.Int32
	client.PrependReactor("create", "pods", func(action clienttesting.Action) (bool, runtime.Object, error) {
		if create, ok := action.(clienttesting.CreateAction); ok {
			if pod, ok := create.GetObject().(*corev1.Pod); ok {
				pod.UID = types.UID(fmt.Sprint("uid-", uids.Add(1)))
			}
		}
		return false, nil, nil
	})
	factory := informers.NewSharedInformerFactory(client, 0)
	c, err := New(Config{Client: client, Informers: factory, Recorder: record.NewFakeRecorder(1000), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	reconciletest.Start(t, []reconciletest.API{client}, []reconciletest.Informers{factory}, c.Run)
	return client
}

func pods(t *testing.T, client *fake.Clientset) []corev1.Pod {
	list, err := client.CoreV1().Pods("shop").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return list.Items
}

func statusOf(t *testing.T, client *fake.Clientset) appsv1.ReplicaSetStatus {
	rs, err := client.AppsV1().ReplicaSets("shop").Get(t.Context(), "web", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return rs.Status
}

func TestCreatesReplacesAndDeletes(t *testing.T) {
	client := start(t, newSet(3))
	reconciletest.Eventually(t, "3 pods", func() bool { return len(pods(t, client)) == 3 && statusOf(t, client).Replicas == 3 })
	first := pods(t, client)[0]
	if !metav1.IsControlledBy(&first, newSet(0)) || first.GenerateName != "web-" || first.Labels["app"] != "web" {
		t.Errorf("pod %+v", first.ObjectMeta)
	}
	first.Status.Phase = corev1.PodFailed
	if _, err := client.CoreV1().Pods("shop").UpdateStatus(t.Context(), &first, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	reconciletest.Eventually(t, "the failed pod is replaced", func() bool { return len(pods(t, client)) == 4 })
	rs := newSet(1)
	rs.ResourceVersion = ""
	if _, err := client.AppsV1().ReplicaSets("shop").Update(t.Context(), rs, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	reconciletest.Eventually(t, "1 pod and the failed one", func() bool { return len(pods(t, client)) == 2 && statusOf(t, client).Replicas == 1 })
}

func TestAdoptsAndReleases(t *testing.T) {
	orphan := aPod("orphan")
	foreign := aPod("foreign")
	foreign.OwnerReferences = []metav1.OwnerReference{{UID: "else", Controller: new(true), Kind: "ReplicaSet", Name: "else"}}
	astray := aPod("astray")
	astray.Labels = map[string]string{"app": "other"}
	astray.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(newSet(0), kind)}
	client := start(t, newSet(1), orphan, foreign, astray)
	owners := func(name string) int {
		pod, err := client.CoreV1().Pods("shop").Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return len(pod.OwnerReferences)
	}
	reconciletest.Eventually(t, "adopted and released", func() bool { return owners("orphan") == 1 && owners("astray") == 0 })
	reconciletest.Eventually(t, "status counts the adopted pod", func() bool { return statusOf(t, client).Replicas == 1 })
	if len(pods(t, client)) != 3 {
		t.Errorf("%d pods, want no new ones", len(pods(t, client)))
	}
}

func TestSlowStartAsksOnceWhenNothingCanBeCreated(t *testing.T) {
	client := fake.NewClientset()
	var attempts atomic.Int32
	client.PrependReactor("create", "pods", func(clienttesting.Action) (bool, runtime.Object, error) {
		attempts.Add(1)
		return true, nil, errors.New("quota exceeded")
	})
	recorder := record.NewFakeRecorder(10)
	c, err := New(Config{Client: client, Informers: informers.NewSharedInformerFactory(client, 0), Recorder: recorder, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.runner.ShutDown()
	if err := c.create(t.Context(), newSet(100), 100); err == nil {
		t.Error("no error")
	}
	if attempts.Load() != 1 {
		t.Errorf("%d attempts in one pass, want 1", attempts.Load())
	}
	if event := <-recorder.Events; event != "Warning FailedCreate Error creating: quota exceeded" {
		t.Errorf("event %q", event)
	}
	if c.expect.wait("rs", time.Now()) != 0 {
		t.Error("waits for pods that were never created")
	}
}

func TestStaleCacheMakesNoSecondPod(t *testing.T) {
	client := fake.NewClientset()
	blind := func() *Controller { // a process that never sees an event
		c, err := New(Config{Client: client, Informers: informers.NewSharedInformerFactory(client, 0), Recorder: record.NewFakeRecorder(100), Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.runner.ShutDown)
		return c
	}
	for range 2 { // the second one was started after a SIGKILL of the first
		if err := blind().create(t.Context(), newSet(3), 3); err != nil {
			t.Fatal(err)
		}
	}
	if got := len(pods(t, client)); got != 3 {
		t.Errorf("%d pods, want 3", got)
	}
}
