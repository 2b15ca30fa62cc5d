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
	// Indexes over pods and nodes, so that a decision reads only what matters.
	alike      map[string]map[string]*Alike // by namespace and Pod.alike
	repellers  map[string]*Repeller         // by Pod.repeller
	groupZones map[groupZone]int
	domains    map[string]map[string]int // memory of Domains
}

type placement struct {
	pod  *Pod
	node *Node
}

type groupZone struct{ group, zone string }

// NewCluster returns an empty one.
func NewCluster() *Cluster {
	return &Cluster{
		ImageNodes: map[string]int{},
		byName:     map[string]*Node{},
		pods:       map[types.UID]*placement{},
		namespaces: map[string]labels.Set{},
		alike:      map[string]map[string]*Alike{},
		repellers:  map[string]*Repeller{},
		groupZones: map[groupZone]int{},
		domains:    map[string]map[string]int{},
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
		clear(c.domains)
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
		clear(c.domains)
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
	clear(c.domains)
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
	c.countAlike(at, 1)
	c.countRepeller(at, 1)
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
	at.node.add(at.pod, -1)
	bump(c.groupZones, groupZone{at.pod.Group, at.node.Zone}, -1)
	c.countAlike(at, -1)
	c.countRepeller(at, -1)
	c.drop(at.node)
	return true
}

// SetNamespace notes a namespace's labels, which affinity terms may select by.
func (c *Cluster) SetNamespace(name string, set map[string]string) { c.namespaces[name] = set }

// RemoveNamespace forgets them.
func (c *Cluster) RemoveNamespace(name string) { delete(c.namespaces, name) }

// InZone counts the pods of a group in a zone.
func (c *Cluster) InZone(group, zone string) int { return c.groupZones[groupZone{group, zone}] }

// Domains counts the nodes by their value of a label. The result is shared and
// read-only.
func (c *Cluster) Domains(key string) map[string]int {
	counts, known := c.domains[key]
	if !known {
		counts = map[string]int{}
		for _, node := range c.Nodes {
			if value, ok := node.Object.Labels[key]; ok {
				counts[value]++
			}
		}
		c.domains[key] = counts
	}
	return counts
}
