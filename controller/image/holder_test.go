package image

import (
	"errors"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"

	lighterfake "lighter.dev/lighter/api/client/clientset/fake"
	"lighter.dev/lighter/api/v1alpha1"
)

func TestHolder(t *testing.T) {
	with := func(names ...string) func(*corev1.Node) {
		return func(n *corev1.Node) { n.Status.Images = append(n.Status.Images, corev1.ContainerImage{Names: names}) }
	}
	here, other := with("shop:v1", "shop@sha256:1"), with("shop@sha256:2")
	for _, test := range []struct {
		name  string
		nodes []*corev1.Node
		maker string
		want  string
	}{
		{"nobody", []*corev1.Node{node("a"), node("b", other)}, "gone", ""},
		{"who reports it", []*corev1.Node{node("a"), node("b", here), node("c", other)}, "gone", "b"},
		{"the maker, before it reports", []*corev1.Node{node("a"), node("b")}, "b", "b"},
		{"who reports it, not a maker that has dropped it", []*corev1.Node{node("a", here), node("b", other)}, "b", "a"},
		{"the maker among those that report it", []*corev1.Node{node("a", here), node("b", here)}, "b", "b"},
		{"a ready one before the maker", []*corev1.Node{node("a", here), node("b", here, lost)}, "b", "a"},
		{"a lost one if there is no other", []*corev1.Node{node("a"), node("b", here, lost)}, "gone", "b"},
	} {
		got, err := holder(test.nodes, "shop/web", "sha256:1", test.maker)
		if got != test.want || (err == nil) != (test.want != "") {
			t.Errorf("%s: %q, %v, want %q", test.name, got, err, test.want)
		}
	}
}

// TestHolderOfANewName: what was made a moment ago, and has been given another name
// since, is where it was made, though no node reports it yet. Who made the same in
// another namespace does not count.
func TestHolderOfANewName(t *testing.T) {
	image := func(namespace, name, digest, node string) *v1alpha1.Image {
		return &v1alpha1.Image{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Status: v1alpha1.ImageStatus{Digest: digest, NodeName: node}}
	}
	tag, lone := image("shop", "registry-web", "sha256:1", ""), image("shop", "lone", "sha256:2", "")
	nodes := cache.NewIndexer(cache.MetaNamespaceKeyFunc, nil)
	for _, name := range []string{"a", "b", "c"} {
		if err := nodes.Add(node(name)); err != nil {
			t.Fatal(err)
		}
	}
	c := &Controller{
		nodes:  corelisters.NewNodeLister(nodes),
		client: lighterfake.NewSimpleClientset(tag, lone, image("shop", "web", "sha256:1", "b"), image("else", "web", "sha256:2", "c")),
	}
	if got, err := c.PickHolder(t.Context(), tag); got != "b" || err != nil {
		t.Errorf("%q, %v, want b", got, err)
	}
	if got, err := c.PickHolder(t.Context(), lone); !errors.Is(err, errNoHolder) {
		t.Errorf("%q, %v, want nobody", got, err)
	}
}
