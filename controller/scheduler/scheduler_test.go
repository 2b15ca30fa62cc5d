package scheduler

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/record"

	"lighter.dev/lighter/controller/reconcile/reconciletest"
)

func node(name string) *corev1.Node {
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelHostname: name}},
		Status: corev1.NodeStatus{
			Conditions:  []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}},
			Allocatable: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("2"), corev1.ResourceMemory: resource.MustParse("4Gi"), corev1.ResourcePods: resource.MustParse("110")},
		},
	}
}

func pod(name, cpu string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "shop", UID: types.UID(name)},
		Spec: corev1.PodSpec{
			SchedulerName: corev1.DefaultSchedulerName,
			Containers:    []corev1.Container{{Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu)}}}},
		},
	}
}

// bindable makes the fake API carry bindings out; refuse may fail them first.
func bindable(client *fake.Clientset, refuse func() error) {
	pods := corev1.SchemeGroupVersion.WithResource("pods")
	client.PrependReactor("create", "pods", func(action clienttesting.Action) (bool, runtime.Object, error) {
		create, ok := action.(clienttesting.CreateAction)
		if !ok || action.GetSubresource() != "binding" {
			return false, nil, nil
		}
		binding, ok := create.GetObject().(*corev1.Binding)
		if !ok {
			return false, nil, nil
		}
		if err := refuse(); err != nil {
			return true, nil, err
		}
		is, err := client.Tracker().Get(pods, "shop", binding.Name)
		if err != nil {
			return true, nil, err
		}
		bound, ok := is.DeepCopyObject().(*corev1.Pod)
		if !ok {
			return false, nil, nil
		}
		bound.Spec.NodeName = binding.Target.Name
		return true, binding, client.Tracker().Update(pods, bound, "shop")
	})
}

type cluster struct {
	*testing.T
	client *fake.Clientset
	events *record.FakeRecorder
}

func start(t *testing.T, refuse func() error, objects ...runtime.Object) cluster {
	client := fake.NewClientset(objects...)
	bindable(client, refuse)
	factory := informers.NewSharedInformerFactory(client, 0)
	events := record.NewFakeRecorder(1000)
	s, err := New(Config{Client: client, Informers: factory, Recorder: events, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	reconciletest.Start(t, []reconciletest.API{client}, []reconciletest.Informers{factory}, s.Run)
	return cluster{t, client, events}
}

func never() error { return nil }

func (c cluster) get(name string) *corev1.Pod {
	p, err := c.client.CoreV1().Pods("shop").Get(c.Context(), name, metav1.GetOptions{})
	if err != nil {
		c.Fatal(err)
	}
	return p
}

func (c cluster) eventually(what string, holds func() bool) {
	c.Helper()
	reconciletest.Eventually(c, what, holds)
}

func TestBindsAndSpreads(t *testing.T) {
	c := start(t, never, node("a"), node("b"), node("c"))
	on := map[string]int{}
	for i := range 9 {
		p := pod(fmt.Sprint("p", i), "100m")
		p.Labels = map[string]string{"app": "web"}
		if _, err := c.client.CoreV1().Pods("shop").Create(t.Context(), p, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 9 {
		name := fmt.Sprint("p", i)
		c.eventually(name+" is bound", func() bool { return c.get(name).Spec.NodeName != "" })
		on[c.get(name).Spec.NodeName]++
	}
	if on["a"] != 3 || on["b"] != 3 || on["c"] != 3 {
		t.Errorf("9 pods on 3 nodes: %v", on)
	}
	if event := <-c.events.Events; !strings.HasPrefix(event, "Normal Scheduled Successfully assigned shop/p") {
		t.Errorf("event %q", event)
	}
}

func TestUnschedulableSaysWhyAndIsTriedWhenRoomAppears(t *testing.T) {
	full := pod("full", "1500m")
	full.Spec.NodeName = "a"
	c := start(t, never, node("a"), full, pod("waits", "1"))
	const why = "0/1 nodes are available: 1 Insufficient cpu."
	c.eventually("the condition says why", func() bool {
		for _, condition := range c.get("waits").Status.Conditions {
			if condition.Type == corev1.PodScheduled {
				return condition.Status == corev1.ConditionFalse && condition.Reason == corev1.PodReasonUnschedulable && condition.Message == why
			}
		}
		return false
	})
	if event := <-c.events.Events; event != "Warning FailedScheduling "+why {
		t.Errorf("event %q", event)
	}
	if err := c.client.CoreV1().Pods("shop").Delete(t.Context(), "full", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	c.eventually("room appeared", func() bool { return c.get("waits").Spec.NodeName == "a" })
}

func TestAFailedBindingIsTriedAgain(t *testing.T) {
	var attempts atomic.Int32
	c := start(t, func() error {
		if attempts.Add(1) == 1 {
			return errors.New("etcd is asleep")
		}
		return nil
	}, node("a"), pod("p", "2"))
	c.eventually("bound by the second attempt", func() bool { return c.get("p").Spec.NodeName == "a" })
	if attempts.Load() != 2 {
		t.Errorf("%d attempts", attempts.Load())
	}
}

func TestLeavesOtherPodsAlone(t *testing.T) {
	other, gated, done := pod("other", "1"), pod("gated", "1"), pod("done", "1")
	other.Spec.SchedulerName = "mine"
	gated.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "wait"}}
	done.Status.Phase = corev1.PodFailed
	c := start(t, never, node("a"), other, gated, done, pod("last", "1"))
	c.eventually("the only one of ours is bound", func() bool { return c.get("last").Spec.NodeName == "a" })
	for _, name := range []string{"other", "gated", "done"} {
		if got := c.get(name).Spec.NodeName; got != "" {
			t.Errorf("%s was put on %s", name, got)
		}
	}
	opened := c.get("gated")
	opened.Spec.SchedulingGates = nil
	if _, err := c.client.CoreV1().Pods("shop").Update(t.Context(), opened, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	c.eventually("the gate is open", func() bool { return c.get("gated").Spec.NodeName == "a" })
}
