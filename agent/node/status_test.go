package node

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

func newNode(t *testing.T, client *fake.Clientset) *Node {
	t.Helper()
	n, err := New(Config{Client: client, Name: "n1", DataDir: t.TempDir(), Annotations: map[string]string{"a": "b"}, LeaseInterval: time.Second, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestUnknownIsTakenBack: the control plane has declared the node lost; the next
// look of the agent says how it is, not only the next heartbeat in five minutes.
func TestUnknownIsTakenBack(t *testing.T) {
	client := fake.NewClientset()
	n := newNode(t, client)
	if err := n.register(t.Context()); err != nil {
		t.Fatal(err)
	}
	nodes := client.CoreV1().Nodes()
	lost, err := nodes.Get(t.Context(), "n1", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range lost.Status.Conditions {
		lost.Status.Conditions[i].Status, lost.Status.Conditions[i].Reason = corev1.ConditionUnknown, "NodeStatusUnknown"
	}
	if _, err := nodes.UpdateStatus(t.Context(), lost, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := n.writeMetaAndStatus(t.Context()); err != nil {
		t.Fatal(err)
	}
	have, err := nodes.Get(t.Context(), "n1", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range have.Status.Conditions {
		if c.Status == corev1.ConditionUnknown {
			t.Errorf("%s is still Unknown: %s", c.Type, c.Reason)
		}
	}
	if ready := condition(&have.Status, corev1.NodeReady); ready == nil || ready.Status != corev1.ConditionTrue {
		t.Errorf("Ready is %+v", ready)
	}
}

func TestUnchangedStatusIsNotWritten(t *testing.T) {
	client := fake.NewClientset()
	n := newNode(t, client)
	if err := n.register(t.Context()); err != nil {
		t.Fatal(err)
	}
	client.ClearActions()
	if err := n.writeMetaAndStatus(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, action := range client.Actions() {
		if action.GetVerb() != "get" {
			t.Errorf("%s %s although nothing changed", action.GetVerb(), action.GetResource().Resource)
		}
	}
}

// TestStatusFollowsLease: once the lease is renewed after failures, the status
// is looked at without waiting for its turn.
func TestStatusFollowsLease(t *testing.T) {
	client := fake.NewClientset()
	n := newNode(t, client)
	n.cfg.LeaseDuration = 0 // every outage is a long one
	dropped, back := 0, 0
	n.cfg.DropLease, n.cfg.Back = func() { dropped++ }, func() { back++ }
	failures := 3
	client.PrependReactor("get", "leases", func(clienttesting.Action) (bool, runtime.Object, error) {
		failures--
		return failures >= 0, nil, errors.New("no route to host")
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- n.keepLease(ctx) }()
	select {
	case <-n.nudge:
	case <-time.After(30 * time.Second):
		t.Error("the status is not looked at")
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if dropped != 3 || back != 1 {
		t.Errorf("connections were dropped %d times, the end of the outage was told %d times", dropped, back)
	}
}
