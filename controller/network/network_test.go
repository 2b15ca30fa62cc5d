package network

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sort"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/record"

	"lighter.dev/lighter/controller/reconcile/reconciletest"
)

// rig runs reconcilers against a fake API until the test ends.
type rig struct {
	t      *testing.T
	api    *fake.Clientset
	events *record.FakeRecorder
}

type runner interface{ Run(context.Context) error }

func newRig(t *testing.T, create func(Deps) ([]runner, error), objects ...runtime.Object) *rig {
	t.Helper()
	r := &rig{t: t, api: fake.NewClientset(objects...), events: record.NewFakeRecorder(100)}
	r.api.PrependReactor("*", "*", likeTheAPI())
	r.run(create)
	return r
}

// likeTheAPI gives objects what the fake leaves out: UID, version and generation.
func likeTheAPI() clienttesting.ReactionFunc {
	var counter atomic.Int64
	return func(action clienttesting.Action) (bool, runtime.Object, error) {
		written, ok := action.(interface{ GetObject() runtime.Object })
		if !ok {
			return false, nil, nil
		}
		object, ok := written.GetObject().(metav1.Object)
		if !ok {
			return false, nil, nil
		}
		n := counter.Add(1)
		object.SetResourceVersion(fmt.Sprint(n))
		object.SetGeneration(n)
		if object.GetUID() == "" {
			object.SetUID(types.UID(fmt.Sprint("uid-", n)))
		}
		if object.GetName() == "" {
			object.SetName(object.GetGenerateName() + fmt.Sprint(n))
		}
		return false, nil, nil
	}
}

// run starts the reconcilers; the returned function stops them.
func (r *rig) run(create func(Deps) ([]runner, error)) (stop func()) {
	r.t.Helper()
	factory := informers.NewSharedInformerFactory(r.api, 0)
	all, err := create(Deps{Client: r.api, Informers: factory, Recorder: r.events, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		r.t.Fatal(err)
	}
	runs := make([]func(context.Context) error, 0, len(all))
	for _, one := range all {
		runs = append(runs, one.Run)
	}
	return reconciletest.Start(r.t, []reconciletest.API{r.api}, []reconciletest.Informers{factory}, runs...)
}

func (r *rig) eventually(what string, check func() bool) {
	r.t.Helper()
	reconciletest.Eventually(r.t, what, check)
}

// endpoints describes all slices of a service: "ip:port name ready|serving|-".
func (r *rig) endpoints(service string) (all []string, slices int) {
	r.t.Helper()
	list, err := r.api.DiscoveryV1().EndpointSlices("default").List(context.Background(), metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=" + service})
	if err != nil {
		r.t.Fatal(err)
	}
	for _, s := range list.Items {
		if s.Labels[discoveryv1.LabelManagedBy] != ManagedBy {
			r.t.Errorf("slice %s is managed by %q", s.Name, s.Labels[discoveryv1.LabelManagedBy])
		}
		for _, e := range s.Endpoints {
			state := "-"
			switch {
			case *e.Conditions.Ready:
				state = "ready"
			case *e.Conditions.Serving:
				state = "serving"
			}
			for _, p := range s.Ports {
				all = append(all, fmt.Sprintf("%s:%d %s %s %s", e.Addresses[0], *p.Port, *p.Name, *e.NodeName, state))
			}
		}
	}
	sort.Strings(all)
	return all, len(list.Items)
}

func (r *rig) wantEndpoints(service string, want ...string) {
	r.t.Helper()
	var got []string
	deadline := time.Now().Add(30 * time.Second)
	for ; time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		if got, _ = r.endpoints(service); slices.Equal(got, want) {
			return
		}
	}
	r.t.Fatalf("endpoints of %s:\n%s\nwant\n%s", service, strings.Join(got, "\n"), strings.Join(want, "\n"))
}

func pod(name, ip string, ready bool) *corev1.Pod {
	status := corev1.ConditionFalse
	if ready {
		status = corev1.ConditionTrue
	}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID(name), Labels: map[string]string{"app": "web"}},
		Spec: corev1.PodSpec{NodeName: "host-1", Containers: []corev1.Container{{Name: "c",
			Ports: []corev1.ContainerPort{{Name: "web", Protocol: corev1.ProtocolTCP, ContainerPort: 8080}}}}},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, PodIP: ip, PodIPs: []corev1.PodIP{{IP: ip}},
			Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: status}}},
	}
}

func web() *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web", UID: "web"},
		Spec: corev1.ServiceSpec{ClusterIP: "10.43.0.10", ClusterIPs: []string{"10.43.0.10"}, IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol},
			Selector: map[string]string{"app": "web"},
			Ports: []corev1.ServicePort{
				{Name: "http", Protocol: corev1.ProtocolTCP, Port: 80, TargetPort: intstr.FromString("web")},
				{Name: "metrics", Protocol: corev1.ProtocolTCP, Port: 9, TargetPort: intstr.FromInt32(9090)},
			}},
	}
}

func node(name string, cidrs ...string) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name)}, Spec: corev1.NodeSpec{PodCIDRs: cidrs}}
	if len(cidrs) > 0 {
		n.Spec.PodCIDR = cidrs[0]
	}
	return n
}

func slicesOnly(d Deps) ([]runner, error) {
	s, err := NewEndpointSlices(d)
	return []runner{s}, err
}

func TestSlicesFollowPods(t *testing.T) {
	r := newRig(t, slicesOnly, node("host-1"), web(), pod("a", "10.42.1.1", true), pod("b", "10.42.1.2", false))
	r.wantEndpoints("web",
		"10.42.1.1:8080 http host-1 ready", "10.42.1.1:9090 metrics host-1 ready",
		"10.42.1.2:8080 http host-1 -", "10.42.1.2:9090 metrics host-1 -")
	ctx := t.Context()
	pods := r.api.CoreV1().Pods("default")
	if _, err := pods.Update(ctx, pod("b", "10.42.1.2", true), metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	terminating := pod("a", "10.42.1.1", true)
	terminating.DeletionTimestamp = &metav1.Time{Time: time.Now()}
	if _, err := pods.Update(ctx, terminating, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	r.wantEndpoints("web",
		"10.42.1.1:8080 http host-1 serving", "10.42.1.1:9090 metrics host-1 serving",
		"10.42.1.2:8080 http host-1 ready", "10.42.1.2:9090 metrics host-1 ready")
	if err := pods.Delete(ctx, "a", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	r.wantEndpoints("web", "10.42.1.2:8080 http host-1 ready", "10.42.1.2:9090 metrics host-1 ready")
	// A change of the selector is followed as well.
	other := web()
	other.Spec.Selector = map[string]string{"app": "other"}
	if _, err := r.api.CoreV1().Services("default").Update(ctx, other, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	r.wantEndpoints("web")
}

func TestForeignChangeOfASliceIsUndone(t *testing.T) {
	r := newRig(t, slicesOnly, node("host-1"), web(), pod("a", "10.42.1.1", true))
	want := []string{"10.42.1.1:8080 http host-1 ready", "10.42.1.1:9090 metrics host-1 ready"}
	r.wantEndpoints("web", want...)
	list, err := r.api.DiscoveryV1().EndpointSlices("default").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.api.DiscoveryV1().EndpointSlices("default").Delete(t.Context(), list.Items[0].Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	r.wantEndpoints("web", want...)
}

func TestManyEndpointsFillSlicesOfAHundredAndOneChangeWritesOne(t *testing.T) {
	objects := []runtime.Object{node("host-1"), web()}
	for i := range 250 {
		objects = append(objects, pod(fmt.Sprint("p", i), fmt.Sprintf("10.42.%d.%d", i/200, i%200+1), true))
	}
	r := newRig(t, slicesOnly, objects...)
	r.eventually("all endpoints are there", func() bool { all, _ := r.endpoints("web"); return len(all) == 500 })
	if _, n := r.endpoints("web"); n != 3 {
		t.Errorf("%d slices", n)
	}
	r.api.ClearActions()
	if err := r.api.CoreV1().Pods("default").Delete(t.Context(), "p7", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	r.eventually("the endpoint is gone", func() bool { all, _ := r.endpoints("web"); return len(all) == 498 })
	writes := 0
	for _, action := range r.api.Actions() {
		if action.GetResource().Resource == "endpointslices" && action.GetVerb() != "list" && action.GetVerb() != "watch" {
			writes++
		}
	}
	if writes != 1 {
		t.Errorf("%d writes for one endpoint", writes)
	}
}

func TestLegacyEndpoints(t *testing.T) {
	r := newRig(t, func(d Deps) ([]runner, error) {
		s, err := NewEndpointSlices(d)
		if err != nil {
			return nil, err
		}
		e, err := NewEndpoints(d)
		return []runner{s, e}, err
	}, node("host-1"), web(), pod("a", "10.42.1.1", true), pod("b", "10.42.1.2", false))
	r.eventually("Endpoints with one ready and one other address", func() bool {
		e, err := r.api.CoreV1().Endpoints("default").Get(t.Context(), "web", metav1.GetOptions{})
		return err == nil && len(e.Subsets) == 1 && len(e.Subsets[0].Addresses) == 1 && len(e.Subsets[0].NotReadyAddresses) == 1 &&
			e.Subsets[0].Addresses[0].IP == "10.42.1.1" && len(e.Subsets[0].Ports) == 2
	})
	if err := r.api.CoreV1().Services("default").Delete(t.Context(), "web", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	r.eventually("Endpoints go with the service", func() bool {
		_, err := r.api.CoreV1().Endpoints("default").Get(t.Context(), "web", metav1.GetOptions{})
		return err != nil
	})
}

func cidrs(network string, bits int) func(Deps) ([]runner, error) {
	return func(d Deps) ([]runner, error) {
		p, err := NewPodCIDRs(d, netip.MustParsePrefix(network), bits)
		return []runner{p}, err
	}
}

// shares are the pod CIDRs by node.
func (r *rig) shares() map[string]string {
	r.t.Helper()
	list, err := r.api.CoreV1().Nodes().List(context.Background(), metav1.ListOptions{})
	if err != nil {
		r.t.Fatal(err)
	}
	all := map[string]string{}
	for _, n := range list.Items {
		if n.Spec.PodCIDR != "" {
			all[n.Name] = n.Spec.PodCIDR
		}
	}
	return all
}

func TestPodCIDRsAreDealtOutOnce(t *testing.T) {
	r := newRig(t, cidrs("10.42.0.0/16", 24), node("old", "10.42.0.0/24"), node("a"), node("b"))
	for i := range 50 {
		if _, err := r.api.CoreV1().Nodes().Create(t.Context(), node(fmt.Sprint("n", i)), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	r.eventually("all have one", func() bool { return len(r.shares()) == 53 })
	seen := map[string]bool{}
	for name, share := range r.shares() {
		if seen[share] {
			t.Errorf("%s is dealt out twice", share)
		}
		seen[share] = true
		if name == "old" && share != "10.42.0.0/24" {
			t.Errorf("the share of an old node changed to %s", share)
		}
	}
}

func TestPodCIDRsFullUntilANodeGoes(t *testing.T) {
	r := newRig(t, cidrs("10.42.0.0/23", 24), node("a", "10.42.0.0/24"), node("b", "10.42.1.0/24"), node("c"))
	select {
	case event := <-r.events.Events:
		if !strings.Contains(event, "CIDRNotAvailable") {
			t.Errorf("event %q", event)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("no event about the full network")
	}
	if err := r.api.CoreV1().Nodes().Delete(t.Context(), "a", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	r.eventually("the waiting node gets the free share", func() bool { return r.shares()["c"] == "10.42.0.0/24" })
}

func TestPodCIDRIsNotGivenAwayWhileAWriteIsUncertain(t *testing.T) {
	r := &rig{t: t, api: fake.NewClientset(node("a"), node("b")), events: record.NewFakeRecorder(10)}
	failed := map[string]bool{}
	patched := map[string][]string{}
	r.api.PrependReactor("patch", "nodes", func(action clienttesting.Action) (bool, runtime.Object, error) {
		patch, ok := action.(clienttesting.PatchAction)
		if !ok {
			return false, nil, nil
		}
		patched[patch.GetName()] = append(patched[patch.GetName()], string(patch.GetPatch()))
		if !failed[patch.GetName()] {
			failed[patch.GetName()] = true
			return true, nil, fmt.Errorf("connection lost") // written or not: nobody knows
		}
		return false, nil, nil
	})
	r.run(cidrs("10.42.0.0/16", 24))
	r.eventually("both have one", func() bool { return len(r.shares()) == 2 })
	for name, patches := range patched {
		if len(patches) != 2 || patches[0] != patches[1] {
			t.Errorf("node %s was offered %v", name, patches)
		}
	}
	if all := r.shares(); all["a"] == all["b"] {
		t.Errorf("both got %s", all["a"])
	}
}

func TestPodNetworkMustBeDivisible(t *testing.T) {
	for _, bad := range []string{"10.42.0.0/25", "fd42::/48"} {
		api := fake.NewClientset()
		_, err := NewPodCIDRs(Deps{Client: api, Informers: informers.NewSharedInformerFactory(api, 0), Log: slog.New(slog.DiscardHandler)}, netip.MustParsePrefix(bad), 24)
		if err == nil {
			t.Errorf("%s was accepted", bad)
		}
	}
}
