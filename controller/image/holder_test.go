package image

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
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
