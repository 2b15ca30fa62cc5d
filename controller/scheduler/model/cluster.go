package model

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
)

// Cluster is all nodes and all pods that are on one or about to be.
type Cluster struct {
	// Nodes are those that exist, in the order in which they joined.
	Nodes []*Node
	// ImageNodes counts the nodes that hold an image, by name.
	ImageNodes map[string]int

	byName     map[string]*Node
	pods       map[types.UID]*placement
	namespaces map[string]labels.Set
	// Indexes over pods, so that a decision reads only those that matter.
	inNamespace map[string]map[types.UID]*placement
	repelling   map[types.UID]*placement // with required anti-affinity
	groupZones  map[groupZone]int
}

type placement struct {
	pod  *Pod
	node *Node
}

type groupZone struct{ group, zone string }

// NewCluster returns an empty one.
func NewCluster() *Cluster {
	return &Cluster{
		ImageNodes:  map[string]int{},
		byName:      map[string]*Node{},
		pods:        map[types.UID]*placement{},
		namespaces:  map[string]labels.Set{},
		inNamespace: map[string]map[types.UID]*placement{},
		repelling:   map[types.UID]*placement{},
		groupZones:  map[groupZone]int{},
	}
}

// Change says what about a node is different, and so which pods that fitted
// nowhere may fit now. It is a set of bits.
type Change uint

// The kinds of change. PodGone and PodHere concern pods on nodes.
const (
	NodeAdded Change = 1 << iota
	NodeCapacity
	NodeLabels
	NodeTaints
	PodGone
	PodHere
	Changes = iota // how many kinds there are
)

// SetNode adds a node or replaces what is known of it.
func (c *Cluster) SetNode(object *corev1.Node) Change {
	node := c.node(object.Name)
	if node.Object == nil {
		c.Nodes = append(c.Nodes, node)
		c.setNode(node, object)
		return NodeAdded
	}
	was := *node
	c.setNode(node, object)
	var change Change
	if !was.Capacity.equal(&node.Capacity) {
		change |= NodeCapacity
	}
	if !labels.Equals(was.Object.Labels, object.Labels) {
		change |= NodeLabels
	}
	if !slices.EqualFunc(was.Repelling, node.Repelling, func(a, b corev1.Taint) bool { return a.MatchTaint(&b) && a.Value == b.Value }) {
		change |= NodeTaints
	}
	return change
}

func (c *Cluster) setNode(node *Node, object *corev1.Node) {
	c.countImages(node, -1)
	zone := node.Zone
	node.set(object)
	c.countImages(node, 1)
	if zone != node.Zone {
		for group, n := range node.Groups {
			bump(c.groupZones, groupZone{group, zone}, -n)
			bump(c.groupZones, groupZone{group, node.Zone}, n)
		}
	}
}

func (c *Cluster) countImages(node *Node, sign int) {
	for name := range node.Images {
		bump(c.ImageNodes, name, sign)
	}
}

// node returns the node of a name, known or not: pods may be seen before it.
func (c *Cluster) node(name string) *Node {
	node := c.byName[name]
	if node == nil {
		node = newNode(name)
		c.byName[name] = node
	}
	return node
}

// RemoveNode forgets a node, but not its pods, which end on their own.
func (c *Cluster) RemoveNode(name string) {
	node := c.byName[name]
	if node == nil || node.Object == nil {
		return
	}
	c.Nodes = slices.DeleteFunc(c.Nodes, func(n *Node) bool { return n == node })
	c.countImages(node, -1)
	node.Object, node.Images = nil, nil
	c.drop(node)
}

// drop forgets a node that neither exists nor has pods.
func (c *Cluster) drop(node *Node) {
	if node.Object == nil && len(node.pods) == 0 {
		delete(c.byName, node.Name)
	}
}

// Place puts a pod on a node, or moves it there.
func (c *Cluster) Place(pod *Pod, nodeName string) {
	c.Remove(pod.UID)
	at := &placement{pod: pod, node: c.node(nodeName)}
	c.pods[pod.UID] = at
	at.node.add(pod, 1)
	bump(c.groupZones, groupZone{pod.Group, at.node.Zone}, 1)
	namespace := pod.Object.Namespace
	if c.inNamespace[namespace] == nil {
		c.inNamespace[namespace] = map[types.UID]*placement{}
	}
	c.inNamespace[namespace][pod.UID] = at
	if len(pod.AntiAffinity) > 0 {
		c.repelling[pod.UID] = at
	}
}

// Placed returns a pod that is on a node and that node's name; nil and "" if it
// is on none.
func (c *Cluster) Placed(uid types.UID) (*Pod, string) {
	if at := c.pods[uid]; at != nil {
		return at.pod, at.node.Name
	}
	return nil, ""
}

// Remove takes a pod off its node. It tells whether it was on one.
func (c *Cluster) Remove(uid types.UID) bool {
	at := c.pods[uid]
	if at == nil {
		return false
	}
	delete(c.pods, uid)
	delete(c.repelling, uid)
	at.node.add(at.pod, -1)
	bump(c.groupZones, groupZone{at.pod.Group, at.node.Zone}, -1)
	namespace := at.pod.Object.Namespace
	if delete(c.inNamespace[namespace], uid); len(c.inNamespace[namespace]) == 0 {
		delete(c.inNamespace, namespace)
	}
	c.drop(at.node)
	return true
}

// SetNamespace notes a namespace's labels, which affinity terms may select by.
func (c *Cluster) SetNamespace(name string, set map[string]string) { c.namespaces[name] = set }

// RemoveNamespace forgets them.
func (c *Cluster) RemoveNamespace(name string) { delete(c.namespaces, name) }

// InZone counts the pods of a group in a zone.
func (c *Cluster) InZone(group, zone string) int { return c.groupZones[groupZone{group, zone}] }

// Matches tells whether a term selects a pod.
func (c *Cluster) Matches(term *Term, pod *Pod) bool {
	return c.selects(term, pod.Object.Namespace) && term.selector.Matches(labels.Set(pod.Object.Labels))
}

func (c *Cluster) selects(term *Term, namespace string) bool {
	return slices.Contains(term.namespaces, namespace) ||
		!isNothing(term.nsSelector) && term.nsSelector.Matches(c.namespaces[namespace])
}

func isNothing(selector labels.Selector) bool {
	_, selectable := selector.Requirements()
	return !selectable
}

// Selected calls visit for every pod that a term selects, with its node.
func (c *Cluster) Selected(term *Term, visit func(pod *Pod, node *Node)) {
	for namespace, pods := range c.candidates(term) {
		if !c.selects(term, namespace) {
			continue
		}
		for _, at := range pods {
			if at.node.Object != nil && term.selector.Matches(labels.Set(at.pod.Object.Labels)) {
				visit(at.pod, at.node)
			}
		}
	}
}

// candidates narrows the namespaces down where the term lists them.
func (c *Cluster) candidates(term *Term) map[string]map[types.UID]*placement {
	if !isNothing(term.nsSelector) {
		return c.inNamespace
	}
	listed := make(map[string]map[types.UID]*placement, len(term.namespaces))
	for _, namespace := range term.namespaces {
		if pods := c.inNamespace[namespace]; pods != nil {
			listed[namespace] = pods
		}
	}
	return listed
}

// Repellers calls visit for every pod with required anti-affinity.
func (c *Cluster) Repellers(visit func(pod *Pod, node *Node)) {
	for _, at := range c.repelling {
		if at.node.Object != nil {
			visit(at.pod, at.node)
		}
	}
}
