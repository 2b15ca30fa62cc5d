package image

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"

	"lighter.dev/lighter/api/rendezvous"
	"lighter.dev/lighter/api/v1alpha1"
)

// PickHolder chooses a node that holds an Image's content: one that reports the
// digest, those that are ready first, or the one that made it, which may not
// have reported yet.
func (c *Controller) PickHolder(_ context.Context, image *v1alpha1.Image) (string, error) {
	nodes, err := c.nodes.List(labels.Everything())
	if err != nil {
		return "", fmt.Errorf("find a host that holds image %s: %w", image.Name, err)
	}
	node, err := holder(nodes, image.Namespace+"/"+image.Name, image.Status.Digest, image.Status.NodeName)
	if err != nil {
		return "", fmt.Errorf("image %s/%s (%s): %w", image.Namespace, image.Name, image.Status.Digest, err)
	}
	return node, nil
}

// holder is the decision behind PickHolder. Among equals the maker is asked, then
// the one that a hash of the image's name points to, so that not every question
// goes to one node.
func holder(nodes []*corev1.Node, name, digest, maker string) (string, error) {
	var able []*corev1.Node
	for _, node := range nodes {
		if node.Name == maker || holds(node, digest) {
			able = append(able, node)
		}
	}
	if len(able) == 0 {
		return "", errNoHolder
	}
	last := func(not bool) int {
		if not {
			return 1
		}
		return 0
	}
	best := slices.MinFunc(able, func(a, b *corev1.Node) int {
		return cmp.Or(
			cmp.Compare(last(!isReady(a)), last(!isReady(b))),
			cmp.Compare(last(!holds(a, digest)), last(!holds(b, digest))),
			cmp.Compare(last(a.Name != maker), last(b.Name != maker)),
			rendezvous.Compare(name, a.Name, b.Name),
		)
	})
	return best.Name, nil
}

// holds tells whether a node reports an image with the digest.
func holds(node *corev1.Node, digest string) bool {
	for _, image := range node.Status.Images {
		for _, name := range image.Names {
			if _, has, pinned := strings.Cut(name, "@"); pinned && has == digest {
				return true
			}
		}
	}
	return false
}

// errNoHolder: every host that had the content is gone or has lost it.
var errNoHolder = errors.New("no host of the cluster holds it: apply its manifest again to make it anew")
