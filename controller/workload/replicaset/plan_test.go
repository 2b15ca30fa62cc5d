package replicaset

import (
	"errors"
	"slices"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

func newSet(wanted int32) *appsv1.ReplicaSet {
	rs := &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "shop", UID: "rs", ResourceVersion: "7", Generation: 3},
		Spec: appsv1.ReplicaSetSpec{
			Replicas: &wanted,
			Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}},
		},
	}
	rs.Spec.Template.Labels = map[string]string{"app": "web"}
	return rs
}

// aPod is an hour old, runs on node n1 and is ready since half an hour, unless
// change says otherwise.
func aPod(name string, change ...func(*corev1.Pod)) *corev1.Pod {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: name, Namespace: "shop", UID: types.UID(name), Labels: map[string]string{"app": "web"},
			CreationTimestamp: metav1.NewTime(noon.Add(-time.Hour)),
		},
		Spec: corev1.PodSpec{NodeName: "n1"},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{{
			Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(noon.Add(-30 * time.Minute)),
		}}},
	}
	for _, apply := range change {
		apply(pod)
	}
	return pod
}

func on(node string) func(*corev1.Pod) { return func(pod *corev1.Pod) { pod.Spec.NodeName = node } }
func phase(p corev1.PodPhase) func(*corev1.Pod) {
	return func(pod *corev1.Pod) { pod.Status.Phase = p }
}
func unready(pod *corev1.Pod) { pod.Status.Conditions[0].Status = corev1.ConditionFalse }
func readyFor(d time.Duration) func(*corev1.Pod) {
	return func(pod *corev1.Pod) { pod.Status.Conditions[0].LastTransitionTime = metav1.NewTime(noon.Add(-d)) }
}
func cost(c string) func(*corev1.Pod) {
	return func(pod *corev1.Pod) { pod.Annotations = map[string]string{corev1.PodDeletionCost: c} }
}
func restarted(n int32) func(*corev1.Pod) {
	return func(pod *corev1.Pod) { pod.Status.ContainerStatuses = []corev1.ContainerStatus{{RestartCount: n}} }
}
func aged(d time.Duration) func(*corev1.Pod) {
	return func(pod *corev1.Pod) { pod.CreationTimestamp = metav1.NewTime(noon.Add(-d)) }
}
func stopping(pod *corev1.Pod) { pod.DeletionTimestamp = &metav1.Time{Time: noon} }

func TestPlan(t *testing.T) {
	many := make([]*corev1.Pod, 3)
	for i := range many {
		many[i] = aPod(string(rune('a' + i)))
	}
	deleted := newSet(5)
	deleted.DeletionTimestamp = &metav1.Time{Time: noon}
	for _, test := range []struct {
		name           string
		rs             *appsv1.ReplicaSet
		create, remove int
	}{
		{"enough", newSet(3), 0, 0},
		{"too few", newSet(5), 2, 0},
		{"too many", newSet(1), 0, 2},
		{"none wanted", newSet(0), 0, 3},
		{"burst", newSet(2000), burst, 0},
		{"being deleted", deleted, 0, 0},
	} {
		if got := plan(test.rs, many, func() []*corev1.Pod { return many }, noon); got.create != test.create || len(got.remove) != test.remove {
			t.Errorf("%s: create %d, remove %d, want %d, %d", test.name, got.create, len(got.remove), test.create, test.remove)
		}
	}
}

func TestRankForDeletion(t *testing.T) {
	for _, test := range []struct {
		name         string
		first, later *corev1.Pod
	}{
		{"no node before on a node", aPod("a", on("")), aPod("b", phase(corev1.PodPending), unready)},
		{"pending before running", aPod("a", phase(corev1.PodPending)), aPod("b", unready)},
		{"unready before ready", aPod("a", unready, cost("100")), aPod("b")},
		{"cheap before dear", aPod("a", cost("-5")), aPod("b")},
		{"unreadable cost is 0", aPod("a", cost("many")), aPod("b", cost("1"))},
		{"ready for a short time before long", aPod("a", readyFor(time.Minute)), aPod("b", readyFor(time.Hour))},
		{"restarted before steady", aPod("b", restarted(4)), aPod("a", restarted(1))},
		{"young before old", aPod("b", aged(time.Minute)), aPod("a", aged(time.Hour))},
		{"ages of one magnitude: by UID", aPod("a", aged(time.Hour)), aPod("b", aged(time.Hour-time.Second))},
	} {
		for _, order := range [][]*corev1.Pod{{test.first, test.later}, {test.later, test.first}} {
			if got := rankForDeletion(order, order, noon)[0]; got != test.first {
				t.Errorf("%s: gives %s up first", test.name, got.Name)
			}
		}
	}
	crowded, lonely := aPod("b", on("n1")), aPod("a", on("n2"))
	related := []*corev1.Pod{crowded, lonely, aPod("sibling", on("n1")), aPod("gone", on("n2"), stopping)}
	if got := rankForDeletion([]*corev1.Pod{lonely, crowded}, related, noon)[0]; got != crowded {
		t.Error("gives up the pod that is alone on its node first")
	}
}

func TestActiveAndTerminating(t *testing.T) {
	for _, test := range []struct {
		pod                 *corev1.Pod
		active, terminating bool
	}{
		{aPod("runs"), true, false},
		{aPod("stops", stopping), false, true},
		{aPod("failed", phase(corev1.PodFailed)), false, false},
		{aPod("done", phase(corev1.PodSucceeded), stopping), false, false},
	} {
		if isActive(test.pod) != test.active || isTerminating(test.pod) != test.terminating {
			t.Errorf("%s: active %v, terminating %v", test.pod.Name, isActive(test.pod), isTerminating(test.pod))
		}
	}
}

func TestStatus(t *testing.T) {
	rs := newSet(4)
	rs.Spec.MinReadySeconds = 10
	rs.Spec.Template.Labels = map[string]string{"app": "web", "tier": "front"}
	pods := []*corev1.Pod{
		aPod("old"), aPod("fresh", readyFor(4*time.Second)), aPod("newer", readyFor(time.Second)), aPod("unready", unready),
	}
	pods[0].Labels["tier"] = "front"
	got, recheck := status(rs, pods, 2, nil, noon)
	want := appsv1.ReplicaSetStatus{
		Replicas: 4, FullyLabeledReplicas: 1, ReadyReplicas: 3, AvailableReplicas: 1,
		TerminatingReplicas: new(int32(2)), ObservedGeneration: 3,
	}
	if got.String() != want.String() {
		t.Errorf("got %v\nwant %v", got, want)
	}
	if recheck != 6*time.Second {
		t.Errorf("looks again in %v, want 6s: fresh is ready for 4 of 10 seconds", recheck)
	}
}

func TestFailureCondition(t *testing.T) {
	rs := newSet(2)
	first, _ := status(rs, nil, 0, errors.New("quota"), noon)
	if len(first.Conditions) != 1 || first.Conditions[0].Reason != reasonFailedCreate || first.Conditions[0].Message != "quota" {
		t.Fatalf("conditions %v", first.Conditions)
	}
	rs.Status = first
	again, _ := status(rs, nil, 0, errors.New("quota"), noon.Add(time.Hour))
	if !again.Conditions[0].LastTransitionTime.Time.Equal(noon) {
		t.Error("the same failure again looks like a new one")
	}
	if healed, _ := status(rs, nil, 0, nil, noon); len(healed.Conditions) != 0 {
		t.Errorf("after success: %v", healed.Conditions)
	}
	if down, _ := status(newSet(0), []*corev1.Pod{aPod("a")}, 0, errors.New("no"), noon); down.Conditions[0].Reason != reasonFailedDelete {
		t.Errorf("reason %s for a failed deletion", down.Conditions[0].Reason)
	}
}

func TestPodNames(t *testing.T) {
	free := func(string) bool { return false }
	rs := newSet(3)
	names := podNames(rs, 500, free)
	if again := podNames(rs, 500, free); !slices.Equal(names, again) {
		t.Error("the same state leads to other names")
	}
	unique := map[string]bool{}
	for _, name := range names {
		unique[name] = true
		if len(name) != len("web-")+5 {
			t.Errorf("name %q", name)
		}
	}
	if len(unique) != 500 {
		t.Errorf("%d different names of 500", len(unique))
	}
	if got := podNames(rs, 1, func(name string) bool { return name == names[0] }); got[0] != names[1] {
		t.Errorf("%s is taken: got %s, want %s", names[0], got[0], names[1])
	}
	rs.ResourceVersion = "8"
	if got := podNames(rs, 1, free); got[0] == names[0] {
		t.Error("a later state leads to the name of an earlier pod")
	}
	rs.Name = "a-name-that-is-much-longer-than-any-that-would-fit-into-a-label-of-dns"
	if got := podNames(rs, 1, free)[0]; len(got) != 63 {
		t.Errorf("%q has %d characters", got, len(got))
	}
}

func TestExpectations(t *testing.T) {
	e := newExpectations()
	e.expect("rs", created("a"), noon)
	e.expect("rs", deleted("b"), noon.Add(time.Second))
	if got := e.wait("rs", noon.Add(time.Second)); got != patience {
		t.Errorf("waits %v, want %v", got, patience)
	}
	if got := e.wait("other", noon); got != 0 {
		t.Errorf("another owner waits %v", got)
	}
	e.settle("rs", deleted("b"))
	e.settle("rs", created("never expected"))
	if got := e.wait("rs", noon.Add(patience)); got != 0 {
		t.Errorf("waits %v for a write that was never seen", got)
	}
	e.expect("rs", created("c"), noon)
	e.forget("rs")
	if len(e.pending) != 0 {
		t.Error("remembers an owner that is gone")
	}
}
