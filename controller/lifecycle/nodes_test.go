package lifecycle

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/record"
)

// fleet is some hosts with agents that renew their leases, in a bubble of virtual time.
type fleet struct {
	t      *testing.T
	api    *fake.Clientset
	silent map[string]bool
	cancel context.CancelFunc
	done   chan error
}

func newFleet(t *testing.T, hosts int) *fleet {
	t.Helper()
	f := &fleet{t: t, api: fake.NewClientset(), silent: map[string]bool{}, done: make(chan error, 2)}
	ctx, cancel := context.WithCancel(t.Context())
	f.cancel = cancel
	for i := range hosts {
		name := fmt.Sprint("host-", i+1)
		node := nodeWith(corev1.ConditionTrue)
		node.Name, node.UID = name, types.UID(name)
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "pod-" + name, UID: types.UID("pod-" + name)},
			Spec:   corev1.PodSpec{NodeName: name},
			Status: corev1.PodStatus{Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}}}
		lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: corev1.NamespaceNodeLease, Name: name}}
		must(t, f.api.Tracker().Add(node), f.api.Tracker().Add(pod), f.api.Tracker().Add(lease))
	}
	factory := informers.NewSharedInformerFactory(f.api, 0)
	d := Deps{Client: f.api, Informers: factory, Recorder: record.NewFakeRecorder(1000), Log: slog.New(slog.DiscardHandler)}
	nodes, err := NewNodes(d, NodesConfig{})
	must(t, err)
	gc, err := NewPodGC(d, PodGCConfig{})
	must(t, err)
	factory.Start(ctx.Done())
	go func() { f.done <- nodes.Run(ctx) }()
	go func() { f.done <- gc.Run(ctx) }()
	f.pass(3 * time.Second)
	return f
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// end stops everything; without it the bubble would not end.
func (f *fleet) end() {
	f.cancel()
	for range 2 {
		if err := <-f.done; err != nil {
			f.t.Error(err)
		}
	}
	synctest.Wait()
}

// pass lets time pass; every agent that is not silent renews its lease once a second.
func (f *fleet) pass(d time.Duration) {
	f.t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(min(time.Second, time.Until(end))) {
		leases, err := f.api.CoordinationV1().Leases(corev1.NamespaceNodeLease).List(context.Background(), metav1.ListOptions{})
		must(f.t, err)
		for i := range leases.Items {
			lease := &leases.Items[i]
			if !f.silent[lease.Name] {
				lease.Spec.RenewTime = &metav1.MicroTime{Time: time.Now()}
				_, err := f.api.CoordinationV1().Leases(lease.Namespace).Update(context.Background(), lease, metav1.UpdateOptions{})
				must(f.t, err)
			}
		}
	}
	synctest.Wait()
}

func (f *fleet) silence(hosts ...int) {
	for _, i := range hosts {
		f.silent[fmt.Sprint("host-", i)] = true
	}
}

func (f *fleet) node(i int) *corev1.Node {
	f.t.Helper()
	node, err := f.api.CoreV1().Nodes().Get(context.Background(), fmt.Sprint("host-", i), metav1.GetOptions{})
	must(f.t, err)
	return node
}

// pod is the pod of host i; nil if it was evicted.
func (f *fleet) pod(i int) *corev1.Pod {
	pod, err := f.api.CoreV1().Pods("default").Get(context.Background(), fmt.Sprint("pod-host-", i), metav1.GetOptions{})
	if err != nil {
		return nil
	}
	return pod
}

func TestLostHostIsEvictedInTimeAndComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 3)
		defer f.end()
		f.silence(2)
		f.pass(7 * time.Second)
		if f.pod(2) != nil || f.pod(1) == nil || f.pod(3) == nil {
			t.Error("7 s after the loss the pod of the lost host, and only that, should be evicted")
		}
		if n := f.node(2); readyStatus(n) != corev1.ConditionUnknown || len(noExecute(n.Spec.Taints)) != 1 {
			t.Errorf("lost node: ready %q, taints %v", readyStatus(n), n.Spec.Taints)
		}
		f.silent = map[string]bool{}
		f.pass(2 * time.Second)
		node := f.node(2)
		node.Status.Conditions[0].Status = corev1.ConditionTrue // what the agent writes
		_, err := f.api.CoreV1().Nodes().UpdateStatus(t.Context(), node, metav1.UpdateOptions{})
		must(t, err)
		f.pass(time.Second)
		if taints := f.node(2).Spec.Taints; len(taints) != 0 {
			t.Errorf("taints of the host that is back: %v", taints)
		}
	})
}

func TestPartitionOfFiveSecondsEvictsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 3)
		defer f.end()
		f.silence(2)
		f.pass(5 * time.Second)
		f.silent = map[string]bool{}
		f.pass(10 * time.Second)
		if f.pod(2) == nil || readyStatus(f.node(2)) != corev1.ConditionTrue {
			t.Error("evicted, or marked as lost")
		}
	})
}

func TestMostHostsSilentMeansWeAreCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 3)
		defer f.end()
		f.silence(2, 3)
		f.pass(time.Minute)
		if f.pod(2) == nil || f.pod(3) == nil {
			t.Error("evicted although two of three are silent")
		}
		if pod := f.pod(2); pod != nil && pod.Status.Conditions[0].Status != corev1.ConditionFalse {
			t.Error("the pod of a silent host still counts as ready")
		}
		// One comes back a moment before the other: no reason to evict the other.
		delete(f.silent, "host-2")
		f.pass(2 * time.Second)
		if f.pod(3) == nil {
			t.Error("evicted the moment the guard ended")
		}
		// But if it stays away, it is lost like any other.
		f.pass(10 * time.Second)
		if f.pod(3) != nil || f.pod(2) == nil {
			t.Error("the host that stayed away should be evicted, the one that came back not")
		}
	})
}

func TestNoLeaseAtAllGetsAGracePeriod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 3)
		defer f.end()
		node := nodeWith(corev1.ConditionTrue)
		node.Name, node.UID = "host-9", "host-9"
		_, err := f.api.CoreV1().Nodes().Create(t.Context(), node, metav1.CreateOptions{})
		must(t, err)
		f.pass(5 * time.Second)
		if readyStatus(f.node(9)) != corev1.ConditionTrue {
			t.Error("lost before its time")
		}
		f.pass(3 * time.Second)
		if readyStatus(f.node(9)) != corev1.ConditionUnknown {
			t.Error("a node without a lease is never lost")
		}
	})
}

func TestPodsOfADeletedNodeGoOutrightAfterAPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 3)
		defer f.end()
		must(t, f.api.CoreV1().Nodes().Delete(t.Context(), "host-2", metav1.DeleteOptions{}))
		f.pass(DefaultOrphanGrace - time.Second)
		if f.pod(2) == nil {
			t.Error("the agent had no time to register again")
		}
		f.pass(2 * time.Second)
		if f.pod(2) != nil || f.pod(1) == nil {
			t.Error("the pod of the deleted node, and only that, should be gone")
		}
	})
}

func TestOldFinishedPodsAreTrimmed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 1)
		defer f.end()
		for i := range DefaultTerminatedLimit + 3 {
			pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprint("done-", i), UID: types.UID(fmt.Sprint(i)),
				CreationTimestamp: metav1.NewTime(time.Unix(int64(i), 0))},
				Spec: corev1.PodSpec{NodeName: "host-1"}, Status: corev1.PodStatus{Phase: corev1.PodSucceeded}}
			_, err := f.api.CoreV1().Pods("default").Create(t.Context(), pod, metav1.CreateOptions{})
			must(t, err)
		}
		f.pass(2 * terminatedBatch)
		list, err := f.api.CoreV1().Pods("default").List(t.Context(), metav1.ListOptions{})
		must(t, err)
		for i := range list.Items {
			if name := list.Items[i].Name; name == "done-0" || name == "done-2" {
				t.Errorf("%s is still there", name)
			}
		}
		if len(list.Items) != DefaultTerminatedLimit+1 {
			t.Errorf("%d pods are left", len(list.Items))
		}
	})
}
