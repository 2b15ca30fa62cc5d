package lifecycle

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	metadatafake "k8s.io/client-go/metadata/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/ptr"
)

var (
	deployments = schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "deployments"}
	replicaSets = schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "replicasets"}
	podObjects  = schema.GroupVersionResource{Version: "v1", Resource: "pods"}
	kindNames   = map[string]string{"deployments": "Deployment", "replicasets": "ReplicaSet", "pods": "Pod"}
)

// kinds is the discovery of the kinds above.
type kinds struct{}

func (kinds) ServerPreferredResources() ([]*metav1.APIResourceList, error) {
	verbs := metav1.Verbs{"list", "watch", "get", "delete", "patch"}
	return []*metav1.APIResourceList{
		{GroupVersion: "apps/v1", APIResources: []metav1.APIResource{
			{Name: "deployments", Kind: "Deployment", Namespaced: true, Verbs: verbs},
			{Name: "replicasets", Kind: "ReplicaSet", Namespaced: true, Verbs: verbs}}},
		{GroupVersion: "v1", APIResources: []metav1.APIResource{
			{Name: "pods", Kind: "Pod", Namespaced: true, Verbs: verbs},
			{Name: "bindings", Kind: "Binding", Namespaced: true, Verbs: metav1.Verbs{"create"}}}},
	}, nil
}

// objects is an API of metadata with the server's rules of deletion: preconditions,
// propagation policies as finalizers, removal when the last finalizer goes.
type objects struct {
	t      *testing.T
	client *metadatafake.FakeMetadataClient
	mu     sync.Mutex
	log    []string // "delete pods/x Background", "patch …"
}

func newObjects(t *testing.T) *objects {
	t.Helper()
	scheme := metadatafake.NewTestScheme()
	must(t, metav1.AddMetaToScheme(scheme))
	o := &objects{t: t, client: metadatafake.NewSimpleMetadataClient(scheme)}
	o.client.PrependReactor("delete", "*", o.onDelete)
	o.client.PrependReactor("patch", "*", o.onPatch)
	return o
}

func (o *objects) note(format string, args ...any) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.log = append(o.log, fmt.Sprintf(format, args...))
}

func (o *objects) logged() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return strings.Join(o.log, "\n")
}

func (o *objects) onDelete(action clienttesting.Action) (bool, runtime.Object, error) {
	d, ok := action.(clienttesting.DeleteActionImpl)
	if !ok {
		return false, nil, nil
	}
	tracker := o.client.Tracker()
	found, err := tracker.Get(d.GetResource(), d.GetNamespace(), d.GetName())
	if err != nil {
		return true, nil, err
	}
	live, ok := found.(*metav1.PartialObjectMetadata)
	if !ok {
		return true, nil, fmt.Errorf("%T", found)
	}
	live = live.DeepCopy()
	options := d.GetDeleteOptions()
	if p := options.Preconditions; p != nil && p.UID != nil && *p.UID != live.UID {
		return true, nil, apierrors.NewConflict(d.GetResource().GroupResource(), d.GetName(), fmt.Errorf("uid %s is not %s", *p.UID, live.UID))
	}
	policy := metav1.DeletePropagationBackground
	if options.PropagationPolicy != nil {
		policy = *options.PropagationPolicy
	}
	o.note("delete %s/%s %s", d.GetResource().Resource, d.GetName(), policy)
	switch policy {
	case metav1.DeletePropagationForeground:
		live.Finalizers = append(live.Finalizers, metav1.FinalizerDeleteDependents)
	case metav1.DeletePropagationOrphan:
		live.Finalizers = append(live.Finalizers, metav1.FinalizerOrphanDependents)
	}
	if len(live.Finalizers) == 0 {
		return true, nil, tracker.Delete(d.GetResource(), d.GetNamespace(), d.GetName())
	}
	live.DeletionTimestamp = ptr.To(metav1.Now())
	return true, nil, tracker.Update(d.GetResource(), live, d.GetNamespace())
}

func (o *objects) onPatch(action clienttesting.Action) (bool, runtime.Object, error) {
	p, ok := action.(clienttesting.PatchAction)
	if !ok {
		return false, nil, nil
	}
	o.note("patch %s/%s", p.GetResource().Resource, p.GetName())
	_, patched, err := clienttesting.ObjectReaction(o.client.Tracker())(action)
	live, ok := patched.(*metav1.PartialObjectMetadata)
	if err == nil && ok && live.DeletionTimestamp != nil && len(live.Finalizers) == 0 {
		err = o.client.Tracker().Delete(p.GetResource(), p.GetNamespace(), p.GetName())
	}
	return true, patched, err
}

// object describes one to be added.
type object struct {
	gvr        schema.GroupVersionResource
	name       string
	owners     []metav1.OwnerReference
	finalizers []string
}

func ownedBy(gvr schema.GroupVersionResource, name string, block bool) metav1.OwnerReference {
	return metav1.OwnerReference{APIVersion: gvr.GroupVersion().String(), Kind: kindNames[gvr.Resource], Name: name, UID: types.UID(name), BlockOwnerDeletion: &block}
}

func (o *objects) add(all ...object) {
	o.t.Helper()
	for _, one := range all {
		must(o.t, o.client.Tracker().Create(one.gvr, &metav1.PartialObjectMetadata{
			TypeMeta: metav1.TypeMeta{APIVersion: one.gvr.GroupVersion().String(), Kind: kindNames[one.gvr.Resource]},
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: one.name, UID: types.UID(one.name), ResourceVersion: "1",
				OwnerReferences: one.owners, Finalizers: one.finalizers},
		}, "default"))
	}
}

func (o *objects) delete(gvr schema.GroupVersionResource, name string, policy metav1.DeletionPropagation) {
	o.t.Helper()
	must(o.t, o.client.Resource(gvr).Namespace("default").Delete(context.Background(), name, metav1.DeleteOptions{PropagationPolicy: &policy}))
}

// get returns an object, or nil.
func (o *objects) get(gvr schema.GroupVersionResource, name string) *metav1.PartialObjectMetadata {
	live, err := o.client.Resource(gvr).Namespace("default").Get(context.Background(), name, metav1.GetOptions{})
	if err != nil {
		return nil
	}
	return live
}

// collect runs a collector over o while test runs, in virtual time.
func collect(t *testing.T, prepare func(*objects), test func(*objects)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		o := newObjects(t)
		prepare(o)
		c := NewCollector(Deps{Log: slog.New(slog.DiscardHandler)}, o.client, kinds{}, nil)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- c.Run(ctx) }()
		settle()
		test(o)
		cancel()
		must(t, <-done)
		synctest.Wait()
	})
}

// settle lets everything happen that is going to, retries included.
func settle() {
	time.Sleep(time.Minute)
	synctest.Wait()
}

func chainOfOwners(o *objects) {
	o.add(object{gvr: deployments, name: "web"},
		object{gvr: replicaSets, name: "web-1", owners: []metav1.OwnerReference{ownedBy(deployments, "web", true)}},
		object{gvr: podObjects, name: "web-1-a", owners: []metav1.OwnerReference{ownedBy(replicaSets, "web-1", true)}},
		object{gvr: podObjects, name: "alone"})
}

func TestBackgroundDeletionReachesAllGenerations(t *testing.T) {
	collect(t, chainOfOwners, func(o *objects) {
		if o.logged() != "" {
			t.Fatalf("collected from a healthy cluster: %s", o.logged())
		}
		o.delete(deployments, "web", metav1.DeletePropagationBackground)
		settle()
		if o.get(replicaSets, "web-1") != nil || o.get(podObjects, "web-1-a") != nil || o.get(podObjects, "alone") == nil {
			t.Errorf("wrong ones are left after\n%s", o.logged())
		}
	})
}

func TestForegroundDeletionEndsWithTheOwner(t *testing.T) {
	collect(t, chainOfOwners, func(o *objects) {
		o.delete(deployments, "web", metav1.DeletePropagationForeground)
		settle()
		if o.get(deployments, "web") != nil || o.get(replicaSets, "web-1") != nil || o.get(podObjects, "web-1-a") != nil {
			t.Errorf("left over after\n%s", o.logged())
		}
		want := []string{"delete deployments/web", "delete replicasets/web-1 Foreground", "delete pods/web-1-a", "patch replicasets/web-1", "patch deployments/web"}
		at := 0
		for _, line := range strings.Split(o.logged(), "\n") {
			if at < len(want) && strings.HasPrefix(line, want[at]) {
				at++
			}
		}
		if at != len(want) {
			t.Errorf("order:\n%s\nwant in it\n%s", o.logged(), strings.Join(want, "\n"))
		}
	})
}

func TestForegroundDeletionWaitsForABlockingDependent(t *testing.T) {
	collect(t, func(o *objects) {
		o.add(object{gvr: deployments, name: "web"},
			object{gvr: replicaSets, name: "web-1", owners: []metav1.OwnerReference{ownedBy(deployments, "web", true)}, finalizers: []string{"example.com/busy"}})
	}, func(o *objects) {
		o.delete(deployments, "web", metav1.DeletePropagationForeground)
		settle()
		if o.get(deployments, "web") == nil {
			t.Fatal("the owner went before its dependent")
		}
		patch := []byte(`{"metadata":{"finalizers":[]}}`)
		_, err := o.client.Resource(replicaSets).Namespace("default").Patch(t.Context(), "web-1", types.MergePatchType, patch, metav1.PatchOptions{})
		must(t, err)
		settle()
		if o.get(deployments, "web") != nil {
			t.Errorf("the owner still waits after\n%s", o.logged())
		}
	})
}

func TestOrphansStay(t *testing.T) {
	collect(t, chainOfOwners, func(o *objects) {
		o.delete(deployments, "web", metav1.DeletePropagationOrphan)
		settle()
		rs := o.get(replicaSets, "web-1")
		if o.get(deployments, "web") != nil || rs == nil || len(rs.OwnerReferences) != 0 || o.get(podObjects, "web-1-a") == nil {
			t.Errorf("after\n%s\nreplica set: %v", o.logged(), rs)
		}
	})
}

func TestTwoOwnersOneGone(t *testing.T) {
	collect(t, func(o *objects) {
		o.add(object{gvr: deployments, name: "here"},
			object{gvr: podObjects, name: "shared", owners: []metav1.OwnerReference{ownedBy(deployments, "here", false), ownedBy(deployments, "gone", false)}})
	}, func(o *objects) {
		pod := o.get(podObjects, "shared")
		if pod == nil || len(pod.OwnerReferences) != 1 || pod.OwnerReferences[0].Name != "here" {
			t.Errorf("%v", pod)
		}
	})
}

func TestOwnerGoneWhileNobodyWatched(t *testing.T) {
	collect(t, func(o *objects) {
		o.add(object{gvr: podObjects, name: "left", owners: []metav1.OwnerReference{ownedBy(replicaSets, "gone", true)}})
		namesake := ownedBy(replicaSets, "namesake", true)
		namesake.UID = "another"
		o.add(object{gvr: replicaSets, name: "namesake"}, object{gvr: podObjects, name: "of-the-old", owners: []metav1.OwnerReference{namesake}})
	}, func(o *objects) {
		if o.get(podObjects, "left") != nil || o.get(podObjects, "of-the-old") != nil || o.get(replicaSets, "namesake") == nil {
			t.Errorf("after\n%s", o.logged())
		}
	})
}

func TestUnknownOwnerKindIsNoReasonToDelete(t *testing.T) {
	collect(t, func(o *objects) {
		stranger := metav1.OwnerReference{APIVersion: "example.com/v1", Kind: "Widget", Name: "w", UID: "w"}
		o.add(object{gvr: podObjects, name: "p", owners: []metav1.OwnerReference{stranger}})
	}, func(o *objects) {
		if o.get(podObjects, "p") == nil || o.logged() != "" {
			t.Errorf("deleted because its owner's API is away:\n%s", o.logged())
		}
	})
}

// TestNamespaceEmptiesPodsFirst also covers what the conditions say meanwhile.
func TestNamespaceEmptiesPodsFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newObjects(t)
		o.add(object{gvr: podObjects, name: "busy", finalizers: []string{"example.com/busy"}}, object{gvr: deployments, name: "web"})
		namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "default", DeletionTimestamp: ptr.To(metav1.Now()), Finalizers: []string{"x"}},
			Spec: corev1.NamespaceSpec{Finalizers: []corev1.FinalizerName{corev1.FinalizerKubernetes}}}
		api := fake.NewClientset(namespace)
		factory := informers.NewSharedInformerFactory(api, 0)
		n, err := NewNamespaces(Deps{Client: api, Informers: factory, Recorder: record.NewFakeRecorder(10), Log: slog.New(slog.DiscardHandler)}, o.client, kinds{})
		must(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		factory.Start(ctx.Done())
		done := make(chan error, 1)
		go func() { done <- n.Run(ctx) }()
		settle()
		if o.get(deployments, "web") == nil {
			t.Error("the deployment went before the pods")
		}
		current, err := api.CoreV1().Namespaces().Get(ctx, "default", metav1.GetOptions{})
		must(t, err)
		remaining := slices.IndexFunc(current.Status.Conditions, func(c corev1.NamespaceCondition) bool { return c.Type == corev1.NamespaceContentRemaining })
		if remaining < 0 || !strings.Contains(current.Status.Conditions[remaining].Message, "pods has 1") {
			t.Errorf("conditions %v", current.Status.Conditions)
		}
		_, err = o.client.Resource(podObjects).Namespace("default").Patch(ctx, "busy", types.MergePatchType, []byte(`{"metadata":{"finalizers":[]}}`), metav1.PatchOptions{})
		must(t, err)
		settle()
		if o.get(deployments, "web") != nil {
			t.Errorf("the deployment is left after\n%s", o.logged())
		}
		finalized := slices.ContainsFunc(api.Actions(), func(a clienttesting.Action) bool { return a.GetSubresource() == "finalize" })
		if !finalized {
			t.Error("the namespace was not finalized")
		}
		cancel()
		must(t, <-done)
		factory.Shutdown()
	})
}
