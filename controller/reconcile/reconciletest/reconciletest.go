// Package reconciletest is the frame of tests that run reconcilers against a fake
// API: it starts and stops them with their informers, waits for what they bring
// about, and teaches the fake what its model does about a status.
package reconciletest

import (
	"context"
	"reflect"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

// API is a fake clientset, client-go's or ours.
type API interface {
	Actions() []clienttesting.Action
}

// Informers is a factory of informers, client-go's or ours.
type Informers interface {
	Start(stop <-chan struct{})
	WaitForCacheSync(stop <-chan struct{}) map[reflect.Type]bool
	Shutdown()
}

// Start runs informers of fake APIs and the Run methods of reconcilers. It returns
// when all informers watch: of an object that is deleted between an informer's list
// and its watch, the fake would never tell. stop ends all of them and waits; it may be
// called again, and the end of the test does. A Run that returns an error fails the
// test.
func Start(t *testing.T, apis []API, informers []Informers, runs ...func(context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	before := watches(apis)
	for _, factory := range informers {
		factory.Start(ctx.Done())
	}
	done := make(chan error, len(runs))
	for _, run := range runs {
		go func() { done <- run(ctx) }()
	}
	stop = sync.OnceFunc(func() {
		cancel()
		for range runs {
			if err := <-done; err != nil {
				t.Errorf("Run: %v", err)
			}
		}
		for _, factory := range informers {
			factory.Shutdown()
		}
	})
	t.Cleanup(stop)
	count := 0
	for _, factory := range informers {
		count += len(factory.WaitForCacheSync(ctx.Done()))
	}
	Eventually(t, "all informers watch", func() bool { return watches(apis)-before >= count })
	return stop
}

func watches(apis []API) (count int) {
	for _, api := range apis {
		for _, action := range api.Actions() {
			if action.GetVerb() == "watch" {
				count++
			}
		}
	}
	return count
}

// Eventually waits until a condition holds, and fails the test if it never does.
func Eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !holds(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

// StatusOnly makes the fake API take over only what take copies when the status of a
// resource is written, as the real one does: its own keeps the whole object.
func StatusOnly[T runtime.Object](client *fake.Clientset, resource schema.GroupVersionResource, take func(is, written T)) {
	client.PrependReactor("update", resource.Resource, func(action clienttesting.Action) (bool, runtime.Object, error) {
		update, ok := action.(clienttesting.UpdateAction)
		if !ok || action.GetSubresource() != "status" {
			return false, nil, nil
		}
		written, ok := update.GetObject().(T)
		if !ok {
			return false, nil, nil
		}
		name, err := meta.Accessor(update.GetObject())
		if err != nil {
			return true, nil, err
		}
		found, err := client.Tracker().Get(resource, name.GetNamespace(), name.GetName())
		if err != nil {
			return true, nil, err
		}
		is, ok := found.DeepCopyObject().(T)
		if !ok {
			return false, nil, nil
		}
		take(is, written)
		return true, is, client.Tracker().Update(resource, is, name.GetNamespace())
	})
}
