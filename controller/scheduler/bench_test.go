package scheduler

import (
	"context"
	"fmt"
	"log/slog"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/record"
)

// BenchmarkEventToBinding measures one pod from its watch event to its binding
// request, with nothing else to do: the latency that the scheduler adds.
func BenchmarkEventToBinding(b *testing.B) {
	client := fake.NewClientset()
	bound := make(chan struct{})
	client.PrependReactor("create", "pods", func(clienttesting.Action) (bool, runtime.Object, error) {
		bound <- struct{}{}
		return true, &corev1.Binding{}, nil
	})
	s, err := New(Config{
		Client: client, Informers: informers.NewSharedInformerFactory(client, 0),
		Recorder: &record.FakeRecorder{}, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		b.Fatal(err)
	}
	s.synced = nil // there are no informers here: events are made by hand
	for i := range 3 {
		s.cluster.SetNode(node(fmt.Sprint("node-", i)))
	}
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	for i := 0; b.Loop(); i++ {
		p := pod(fmt.Sprint("pod-", i), "100m")
		s.podSeen(nil, p)
		<-bound
		s.podGone(p)
	}
	cancel()
	<-done
}
