package image

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"lighter.dev/lighter/api/rendezvous"
	"lighter.dev/lighter/api/v1alpha1"
)

// PickHolder chooses a node that holds an Image's content: one that reports the
// digest, those that are ready first, or the one that made it, which may not
// have reported yet, perhaps under another name in the Image's namespace.
func (c *Controller) PickHolder(ctx context.Context, image *v1alpha1.Image) (string, error) {
	nodes, err := c.nodes.List(labels.Everything())
	if err != nil {
		return "", fmt.Errorf("find a host that holds image %s: %w", image.Name, err)
	}
	name, digest := image.Namespace+"/"+image.Name, image.Status.Digest
	node, err := holder(nodes, name, digest, image.Status.NodeName)
	if errors.Is(err, errNoHolder) {
		var maker string
		if maker, err = c.maker(ctx, image.Namespace, digest); err == nil {
			node, err = holder(nodes, name, digest, maker)
		}
	}
	if err != nil {
		return "", fmt.Errorf("image %s/%s (%s): %w", image.Namespace, image.Name, image.Status.Digest, err)
	}
	return node, nil
}

// maker finds the node that made a digest for an Image of the namespace, "" if
// there is none. It asks the API: what was made and tagged just now is in no cache.
func (c *Controller) maker(ctx context.Context, namespace, digest string) (string, error) {
	all, err := c.client.LighterV1alpha1().Images(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return "", fmt.Errorf("find the host that made it: %w", err)
	}
	for _, image := range all.Items {
		if image.Status.Digest == digest && image.Status.NodeName != "" {
			return image.Status.NodeName, nil
		}
	}
	return "", nil
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
