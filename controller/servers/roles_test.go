package servers

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"

	"lighter.dev/lighter/controller/store"
)

// TestRoles: the Nodes of servers are marked, also one that becomes or is no server
// any more while nothing happens to its Node; nothing else of a Node is changed.
func TestRoles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		node := func(name string, labels map[string]string) *corev1.Node {
			return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}
		}
		client := fake.NewClientset(node("a", map[string]string{"zone": "1"}), node("b", nil), node("c", map[string]string{ControlPlaneLabel: "", "zone": "2"}))
		factory := informers.NewSharedInformerFactory(client, 0)
		var mu sync.Mutex
		known := map[string]store.Server{"a": {}}
		r, err := NewRoles(client, factory.Core().V1().Nodes(), func(context.Context) (map[string]store.Server, error) {
			mu.Lock()
			defer mu.Unlock()
			return known, nil
		}, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		factory.Start(ctx.Done())
		done := make(chan error, 1)
		go func() { done <- r.Run(ctx) }()
		wants := func(a, b, c bool) {
			t.Helper()
			synctest.Wait()
			for name, want := range map[string]bool{"a": a, "b": b, "c": c} {
				got, err := client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
				if err != nil {
					t.Fatal(err)
				}
				if _, is := got.Labels[ControlPlaneLabel]; is != want {
					t.Errorf("%s: labels %v", name, got.Labels)
				}
				if name != "b" && got.Labels["zone"] == "" {
					t.Errorf("%s lost its zone", name)
				}
			}
		}
		time.Sleep(rolesPeriod)
		wants(true, false, false)
		mu.Lock()
		known = map[string]store.Server{"b": {}}
		mu.Unlock()
		time.Sleep(2 * rolesPeriod)
		wants(false, true, false)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		factory.Shutdown()
	})
}
