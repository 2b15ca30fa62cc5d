package fit

import (
	"lighter.dev/lighter/controller/scheduler/model"
)

// A node's score is the weighted sum of figures from 0 to top. The weights are
// kube-scheduler's.
const (
	top = 100

	weightTaints    = 3
	weightNodes     = 2 // preferred node affinity
	weightNeighbour = 2 // preferred pod affinity
	weightSpread    = 2
	weightLeast     = 1
	weightBalanced  = 1
	weightImages    = 1
)

// Figures that have no scale of their own are normalised over the candidates:
// the largest raw value becomes top (or 0, where less is better).
const (
	rawTaints = iota // less is better
	rawNodes
	rawNeighbour
	rawHost // pods of the group; less is better
	rawZone // less is better
	rawSoft // topology spread; less is better
	normalised
)

// Image sizes between which locality counts: below the lower one, pulling is
// quicker than any imbalance is worth; above the upper one more is no argument.
const (
	smallImage = 23 << 20
	largeImage = 1000 << 20
)

// best ranks the candidates. Among equals the first one wins: the sample's
// start moves on with each decision, so that is a different one each time.
func (c *check) best(candidates []candidate) *model.Node {
	if len(candidates) == 1 {
		return candidates[0].node
	}
	var lowest, highest [normalised]int64
	for i := range candidates {
		c.measure(&candidates[i])
		for figure, value := range candidates[i].raw {
			if i == 0 || value < lowest[figure] {
				lowest[figure] = value
			}
			if i == 0 || value > highest[figure] {
				highest[figure] = value
			}
		}
	}
	best := 0
	for i := range candidates {
		at := &candidates[i]
		at.score += weightTaints*less(at.raw[rawTaints], highest[rawTaints]) +
			weightNodes*more(at.raw[rawNodes], 0, highest[rawNodes]) +
			weightNeighbour*more(at.raw[rawNeighbour], lowest[rawNeighbour], highest[rawNeighbour]) +
			weightSpread*apart(&at.raw, &highest)
		if at.score > candidates[best].score {
			best = i
		}
	}
	return candidates[best].node
}

// more scales a value so that the highest becomes top.
func more(value, lowest, highest int64) int64 {
	if highest == lowest {
		return 0
	}
	return top * (value - lowest) / (highest - lowest)
}

// less scales a value so that 0 becomes top and the highest 0.
func less(value, highest int64) int64 {
	if highest == 0 {
		return top
	}
	return top * (highest - value) / highest
}

// apart is how far a node is from the pod's like: by the user's soft
// constraints if there are any, else by pods of the same group on the host and,
// where there are zones, twice as much by those in the zone.
func apart(raw, highest *[normalised]int64) int64 {
	if highest[rawSoft] > 0 {
		return less(raw[rawSoft], highest[rawSoft])
	}
	host := less(raw[rawHost], highest[rawHost])
	if highest[rawZone] == 0 {
		return host
	}
	return (host + 2*less(raw[rawZone], highest[rawZone])) / 3
}

// measure fills in what one node alone tells.
func (c *check) measure(at *candidate) {
	node, pod := at.node, c.pod
	at.score = weightLeast*c.leastAllocated(node) + weightBalanced*c.balanced(node) + weightImages*c.images(node)
	if len(node.Discouraging) > 0 {
		for i := range node.Discouraging {
			if !tolerates(pod.Object.Spec.Tolerations, &node.Discouraging[i]) {
				at.raw[rawTaints]++
			}
		}
	}
	if pod.PreferredNodes != nil {
		at.raw[rawNodes] = pod.PreferredNodes.Score(node.Object)
	}
	if c.affinity != nil && len(pod.PreferredPods) > 0 {
		at.raw[rawNeighbour] = c.affinity.score(node)
	}
	if len(c.spread) > 0 {
		at.raw[rawSoft] = c.crowding(node)
	}
	if pod.Group != "" {
		at.raw[rawHost] = int64(node.Groups[pod.Group])
		if node.Zone != "" {
			at.raw[rawZone] = int64(c.cluster.InZone(pod.Group, node.Zone))
		}
	}
}

// leastAllocated prefers the emptier host.
func (c *check) leastAllocated(node *model.Node) int64 {
	return (free(node.CPU+c.pod.CPU, node.Capacity.MilliCPU) + free(node.Memory+c.pod.Memory, node.Capacity.Memory)) / 2
}

func free(used, capacity int64) int64 {
	if capacity <= 0 || used >= capacity {
		return 0
	}
	return top * (capacity - used) / capacity
}

// balanced prefers the host where CPU and memory would be used evenly, so that
// neither strands the other.
func (c *check) balanced(node *model.Node) int64 {
	cpu := free(node.CPU+c.pod.CPU, node.Capacity.MilliCPU)
	memory := free(node.Memory+c.pod.Memory, node.Capacity.Memory)
	if cpu > memory {
		return top - (cpu-memory)/2
	}
	return top - (memory-cpu)/2
}

// images prefers hosts that hold the pod's images, by size. An image that few
// nodes have counts less, or all its pods would pile up there.
func (c *check) images(node *model.Node) int64 {
	if len(node.Images) == 0 || len(c.pod.Images) == 0 {
		return 0
	}
	var held int64
	for _, name := range c.pod.Images {
		if size, ok := node.Images[name]; ok {
			held += size * int64(c.cluster.ImageNodes[name]) / int64(len(c.cluster.Nodes))
		}
	}
	limit := int64(largeImage * len(c.pod.Images))
	held = min(max(held, smallImage), limit)
	return top * (held - smallImage) / (limit - smallImage)
}
