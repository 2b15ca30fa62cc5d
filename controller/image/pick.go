package image

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"

	"lighter.dev/lighter/api/rendezvous"
	"lighter.dev/lighter/api/v1alpha1"
)

// PickBuilder chooses the node that builds an image. In this order: wantNode if
// the user asked for one; the node that built it last, which holds its build
// cache; the node with the fewest builds; and among those the one that a hash
// of the image's name points to, so that the choice is stable.
func (c *Controller) PickBuilder(_ context.Context, image *v1alpha1.Image, wantNode string) (string, error) {
	nodes, err := c.nodes.List(labels.Everything())
	if err != nil {
		return "", fmt.Errorf("pick a builder: %w", err)
	}
	name := image.Namespace + "/" + image.Name
	node, err := choose(nodes, name, wantNode, c.builds.loads(name), c.builds.last(name), image.Status.NodeName)
	if err != nil {
		return "", fmt.Errorf("no node can build image %s: %w", name, err)
	}
	c.builds.start(name, node)
	c.log.Info("picked a builder", "image", name, "node", node, "asked", wantNode)
	return node, nil
}

// choose is the decision behind PickBuilder. affinity are nodes that probably
// hold the image's build cache, best first; "" among them is ignored.
func choose(nodes []*corev1.Node, name, wantNode string, loads map[string]int, affinity ...string) (string, error) {
	if wantNode != "" {
		return asked(nodes, wantNode)
	}
	var able []string
	refused := map[string]int{}
	for _, node := range nodes {
		if why := unfit(node); why != "" {
			refused[why]++
			continue
		}
		able = append(able, node.Name)
	}
	if len(able) == 0 {
		return "", refusal(len(nodes), refused)
	}
	for _, node := range affinity {
		if slices.Contains(able, node) {
			return node, nil
		}
	}
	return slices.MinFunc(able, func(a, b string) int {
		return cmp.Or(
			cmp.Compare(loads[a], loads[b]),
			rendezvous.Compare(name, a, b),
		)
	}), nil
}

// asked checks the node that the user named. A cordoned one may build: naming
// it is reason enough.
func asked(nodes []*corev1.Node, name string) (string, error) {
	var names []string
	for _, node := range nodes {
		if node.Name == name {
			if !isReady(node) {
				return "", fmt.Errorf("node %q, which was asked for, is not ready", name)
			}
			return name, nil
		}
		names = append(names, node.Name)
	}
	slices.Sort(names)
	return "", fmt.Errorf("there is no node %q, which was asked for; there are: %s", name, strings.Join(names, ", "))
}

// unfit says why a node does not build, "" if it does.
func unfit(node *corev1.Node) string {
	if node.DeletionTimestamp != nil {
		return "being deleted"
	}
	if !isReady(node) {
		return "not ready"
	}
	if node.Spec.Unschedulable {
		return "cordoned"
	}
	for _, taint := range node.Spec.Taints {
		if taint.Effect == corev1.TaintEffectNoSchedule || taint.Effect == corev1.TaintEffectNoExecute {
			return "tainted"
		}
	}
	return ""
}

func isReady(node *corev1.Node) bool {
	for _, condition := range node.Status.Conditions {
		if condition.Type == corev1.NodeReady {
			return condition.Status == corev1.ConditionTrue
		}
	}
	return false
}

func refusal(nodes int, refused map[string]int) error {
	if nodes == 0 {
		return fmt.Errorf("the cluster has no nodes yet")
	}
	reasons := make([]string, 0, len(refused))
	for why, n := range refused {
		reasons = append(reasons, fmt.Sprintf("%d %s", n, why))
	}
	slices.Sort(reasons)
	return fmt.Errorf("of %d nodes, %s", nodes, strings.Join(reasons, ", "))
}
