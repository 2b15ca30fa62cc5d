// Package reconciletest is the frame of tests that run reconcilers against a fake
// API: it starts and stops them with their informers, waits for what they bring
// about, and teaches the fake what its model does about versions and statuses.
package reconciletest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"sync"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	clienttesting "k8s.io/client-go/testing"
)

// API is a fake clientset, client-go's or ours.
type API interface {
	Actions() []clienttesting.Action
	PrependReactor(verb, resource string, reaction clienttesting.ReactionFunc)
	Tracker() clienttesting.ObjectTracker
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

// Object is what an API keeps.
type Object interface {
	runtime.Object
	metav1.Object
}

// Versioned makes the fake API treat writes of a resource as the real one does; its own
// takes every write as a whole. Here one that is made from an old version is refused
// (Conflict), one of the status takes over the status, which status copies, and what
// also copies (nil for nothing), and any other leaves the status alone.
func Versioned[T Object](client API, resource schema.GroupVersionResource, status, also func(to, from T)) {
	tracker := client.Tracker()
	version := 0 // guarded by the fake's lock
	stamp := func(o metav1.Object) {
		version++
		o.SetResourceVersion(strconv.Itoa(version))
	}
	client.PrependReactor("create", resource.Resource, func(action clienttesting.Action) (bool, runtime.Object, error) {
		if create, ok := action.(clienttesting.CreateAction); ok {
			if made, ok := create.GetObject().(T); ok {
				stamp(made)
			}
		}
		return false, nil, nil
	})
	client.PrependReactor("update", resource.Resource, func(action clienttesting.Action) (bool, runtime.Object, error) {
		written, is, err := versions[T](tracker, action)
		if err != nil {
			return true, nil, err
		}
		if had := written.GetResourceVersion(); had != "" && had != is.GetResourceVersion() {
			return true, nil, apierrors.NewConflict(resource.GroupResource(), is.GetName(), errors.New("the object has been modified"))
		}
		if action.GetSubresource() == "status" {
			status(is, written)
			if also != nil {
				also(is, written)
			}
			written = is
		} else {
			status(written, is)
		}
		stamp(written)
		return true, written, tracker.Update(resource, written, written.GetNamespace())
	})
	client.PrependReactor("patch", resource.Resource, func(action clienttesting.Action) (bool, runtime.Object, error) {
		_, patched, err := clienttesting.ObjectReaction(tracker)(action)
		if err != nil {
			return true, nil, err
		}
		after, ok := patched.DeepCopyObject().(T)
		if !ok {
			return true, patched, nil
		}
		stamp(after)
		return true, after, tracker.Update(resource, after, after.GetNamespace())
	})
}

// versions are copies of what an action writes, and of what there is.
func versions[T Object](tracker clienttesting.ObjectTracker, action clienttesting.Action) (written, is T, err error) {
	update, ok := action.(clienttesting.UpdateAction)
	if ok {
		written, ok = update.GetObject().DeepCopyObject().(T)
	}
	if !ok {
		return written, is, fmt.Errorf("a strange update: %v", action)
	}
	found, err := tracker.Get(action.GetResource(), action.GetNamespace(), written.GetName())
	if err != nil {
		return written, is, err
	}
	if is, ok = found.DeepCopyObject().(T); !ok {
		err = fmt.Errorf("%s is a %T", written.GetName(), found)
	}
	return written, is, err
}
