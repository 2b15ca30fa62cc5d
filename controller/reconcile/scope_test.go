package reconcile

import (
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/cache"

	lighterfake "lighter.dev/lighter/api/client/clientset/fake"
	lighterinformers "lighter.dev/lighter/api/client/informers"
)

// TestScope: a scope's handlers see events until it is closed, the next scope's
// see what is there, and both share one cache.
func TestScope(t *testing.T) {
	client := fake.NewClientset()
	factory := informers.NewSharedInformerFactory(client, 0)
	lighter := lighterinformers.NewSharedInformerFactory(lighterfake.NewSimpleClientset(), 0)
	index := cache.Indexers{"all": func(any) ([]string, error) { return []string{"x"}, nil }}
	enter := func() (*Scope, *atomic.Int32) {
		t.Helper()
		s := NewScope(factory, lighter)
		seen := &atomic.Int32{}
		handler := cache.ResourceEventHandlerFuncs{AddFunc: func(any) { seen.Add(1) }}
		for _, informer := range []cache.SharedIndexInformer{s.Core().V1().Pods().Informer(), s.Lighter.Lighter().V1alpha1().Images().Informer()} {
			if _, err := informer.AddEventHandler(handler); err != nil {
				t.Fatal(err)
			}
			if err := informer.AddIndexers(index); err != nil {
				t.Fatal(err)
			}
		}
		if s.Core().V1().Pods().Informer().GetIndexer() != factory.Core().V1().Pods().Informer().GetIndexer() {
			t.Error("a scope has a cache of its own")
		}
		return s, seen
	}
	first, one := enter()
	factory.Start(t.Context().Done())
	lighter.Start(t.Context().Done())
	create(t, client, "a")
	eventually(t, func() bool { return one.Load() == 1 })
	if n := len(first.removes); n != 2 {
		t.Errorf("%d handlers", n)
	}
	first.Close()
	second, two := enter()
	defer second.Close()
	eventually(t, func() bool { return two.Load() == 1 })
	create(t, client, "b")
	eventually(t, func() bool { return two.Load() == 2 })
	if n := one.Load(); n != 1 {
		t.Errorf("the closed scope has seen %d pods", n)
	}
	found, err := second.Core().V1().Pods().Informer().GetIndexer().ByIndex("all", "x")
	if err != nil || len(found) != 2 {
		t.Errorf("the index has %d pods, %v", len(found), err)
	}
}

func create(t *testing.T, client *fake.Clientset, name string) {
	t.Helper()
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"}}
	if _, err := client.CoreV1().Pods("default").Create(t.Context(), pod, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func eventually(t *testing.T, look func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !look(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not within 30 s")
		}
	}
}
