package image

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/record"

	lighterfake "lighter.dev/lighter/api/client/clientset/fake"
	lighterinformers "lighter.dev/lighter/api/client/informers"
	"lighter.dev/lighter/api/v1alpha1"
	"lighter.dev/lighter/controller/reconcile/reconciletest"
)

func node(name string, change ...func(*corev1.Node)) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
	n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
	for _, apply := range change {
		apply(n)
	}
	return n
}

func lost(n *corev1.Node)     { n.Status.Conditions[0].Status = corev1.ConditionUnknown }
func cordoned(n *corev1.Node) { n.Spec.Unschedulable = true }
func tainted(n *corev1.Node) {
	n.Spec.Taints = []corev1.Taint{{Key: "x", Effect: corev1.TaintEffectNoSchedule}}
}

func TestChoose(t *testing.T) {
	three := []*corev1.Node{node("a"), node("b"), node("c")}
	for _, test := range []struct {
		name     string
		nodes    []*corev1.Node
		want     string // what the user asked for
		loads    map[string]int
		affinity []string
		node     string
		err      string
	}{
		{name: "asked for", nodes: three, want: "b", affinity: []string{"a"}, node: "b"},
		{name: "asked for a cordoned one", nodes: []*corev1.Node{node("a", cordoned)}, want: "a", node: "a"},
		{name: "asked for one that is lost", nodes: []*corev1.Node{node("a", lost)}, want: "a", err: `node "a", which was asked for, is not ready`},
		{name: "asked for a stranger", nodes: three, want: "x", err: `there is no node "x", which was asked for; there are: a, b, c`},
		{name: "holds the cache", nodes: three, loads: map[string]int{"c": 5}, affinity: []string{"", "c"}, node: "c"},
		{name: "held the cache, lost", nodes: []*corev1.Node{node("a", lost), node("b")}, affinity: []string{"a"}, node: "b"},
		{name: "least loaded", nodes: three, loads: map[string]int{"a": 1, "b": 2}, node: "c"},
		{name: "no nodes", err: "the cluster has no nodes yet"},
		{name: "none is fit", nodes: []*corev1.Node{node("a", lost), node("b", cordoned), node("c", tainted)}, err: "of 3 nodes, 1 cordoned, 1 not ready, 1 tainted"},
	} {
		got, err := choose(test.nodes, "shop/web", test.want, test.loads, test.affinity...)
		if got != test.node || (err == nil) != (test.err == "") || err != nil && err.Error() != test.err {
			t.Errorf("%s: got %q, %v", test.name, got, err)
		}
	}
}

func TestRendezvousIsStableAndEven(t *testing.T) {
	nodes := []*corev1.Node{node("host-1"), node("host-2"), node("host-3")}
	count := map[string]int{}
	moved := 0
	for i := range 300 {
		name := "shop/image-" + string(rune('a'+i%26)) + string(rune('a'+i/26))
		with, _ := choose(nodes, name, "", nil)
		without, _ := choose(nodes[:2], name, "", nil)
		count[with]++
		if with != without && with != "host-3" {
			moved++
		}
	}
	if moved != 0 {
		t.Errorf("%d images moved although their node stayed", moved)
	}
	for _, n := range nodes {
		if count[n.Name] < 60 {
			t.Errorf("uneven: %v", count)
		}
	}
}

func TestBuildsAreCounted(t *testing.T) {
	now := time.Unix(0, 0)
	b := newBuilds(func() time.Time { return now })
	b.start("x", "a")
	b.observe("y", "b", true) // known from the API, after a restart
	if loads := b.loads(""); loads["a"] != 1 || loads["b"] != 1 {
		t.Errorf("loads %v", loads)
	}
	if loads := b.loads("x"); loads["a"] != 0 {
		t.Errorf("counts the image that is asking: %v", loads)
	}
	b.observe("x", "", false) // old news: the agent has not begun
	b.observe("x", "", true)
	b.observe("x", "", false)
	if loads := b.loads(""); loads["a"] != 0 || b.last("x") != "a" {
		t.Errorf("after the build: loads %v, last %q", loads, b.last("x"))
	}
	b.start("z", "c")
	now = now.Add(unheard + time.Second)
	if loads := b.loads(""); loads["c"] != 0 || loads["b"] != 1 {
		t.Errorf("a builder that was never heard of: %v", loads)
	}
	b.forget("y")
	if len(b.loads("")) != 0 {
		t.Error("counts an image that is gone")
	}
}

func anImage(conditions ...metav1.Condition) *v1alpha1.Image {
	image := &v1alpha1.Image{ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "shop", Generation: 2}}
	image.Spec.Source.Path = "web"
	image.Status.Conditions = conditions
	return image
}

func building(node string) metav1.Condition {
	return metav1.Condition{Type: v1alpha1.ImageBuilding, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonBuildStarted, Message: "host " + node + " builds it"}
}

func TestCorrect(t *testing.T) {
	gone := anImage()
	gone.DeletionTimestamp = &metav1.Time{Time: time.Now()}
	for _, test := range []struct {
		name  string
		image *v1alpha1.Image
		lost  bool
		want  string
	}{
		{"never built", anImage(), false, v1alpha1.ReasonWaitingForContext},
		{"being deleted", gone, false, ""},
		{"being built", anImage(building("a")), false, ""},
		{"builder lost", anImage(building("a")), true, v1alpha1.ReasonBuildCancelled},
		{"builder lost after the build", anImage(metav1.Condition{Type: v1alpha1.ImageBuilt, Status: metav1.ConditionTrue}), true, ""},
	} {
		got := correct(test.image, "a", test.lost)
		if reason := reasonOf(got); reason != test.want {
			t.Errorf("%s: reason %q, want %q", test.name, reason, test.want)
		}
	}
	if got := builderNamed(anImage(building("host-1.example"))); got != "host-1.example" {
		t.Errorf("builder %q", got)
	}
}

func reasonOf(condition *metav1.Condition) string {
	if condition == nil {
		return ""
	}
	return condition.Reason
}

func TestKeepsConditionsTruthful(t *testing.T) {
	client, lighter := fake.NewClientset(node("a")), lighterfake.NewSimpleClientset(anImage())
	versioned(lighter)
	core, own := informers.NewSharedInformerFactory(client, 0), lighterinformers.NewSharedInformerFactory(lighter, 0)
	events := record.NewFakeRecorder(10)
	c, err := New(Config{Client: lighter, Core: client, Informers: core, LighterInformers: own, Recorder: events, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	reconciletest.Start(t, []reconciletest.API{client, lighter}, []reconciletest.Informers{core, own}, c.Run)
	ctx := t.Context()
	images := lighter.LighterV1alpha1().Images("shop")
	reason := func(kind string) string {
		image, err := images.Get(ctx, "web", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return reasonOf(meta.FindStatusCondition(image.Status.Conditions, kind))
	}
	wait := func(kind, want string) {
		t.Helper()
		reconciletest.Eventually(t, kind+" has reason "+want, func() bool { return reason(kind) == want })
	}
	wait(v1alpha1.ImageBuilt, v1alpha1.ReasonWaitingForContext)
	if got, err := c.PickBuilder(ctx, anImage(), ""); got != "a" || err != nil {
		t.Fatalf("picked %q, %v", got, err)
	}
	if _, err := images.UpdateStatus(ctx, anImage(building("a")), metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.CoreV1().Nodes().UpdateStatus(ctx, node("a", lost), metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	wait(v1alpha1.ImageBuilding, v1alpha1.ReasonBuildCancelled)
	if event := <-events.Events; !strings.HasPrefix(event, "Warning BuildCancelled Node a was lost") {
		t.Errorf("event %q", event)
	}
	if _, err := c.PickBuilder(ctx, anImage(), ""); err == nil || !strings.Contains(err.Error(), "1 not ready") {
		t.Errorf("picked although no node is ready: %v", err)
	}
}
