package fit

import (
	"math"

	"lighter.dev/lighter/controller/scheduler/model"
)

// spread is a topologySpreadConstraint with the pods counted by domain.
type spread struct {
	*model.Constraint
	counts map[string]int // pods by value of the topology key; holds every eligible domain
	least  int            // of all domains; 0 if there are fewer than minDomains
}

// prepareSpread counts, over the nodes that the pod could be meant for, the
// pods that the constraint selects.
func (c *check) prepareSpread(constraint *model.Constraint) spread {
	s := spread{Constraint: constraint, counts: c.domains(constraint)}
	c.cluster.Selected(&constraint.Term, func(set *model.Alike) {
		if set.Terminating {
			return
		}
		for node, pods := range set.Nodes {
			if node.Object == nil || !c.eligible(constraint, node) {
				continue
			}
			if value, ok := node.Object.Labels[constraint.Key]; ok {
				s.counts[value] += pods
			}
		}
	})
	s.least = math.MaxInt
	for _, n := range s.counts {
		s.least = min(s.least, n)
	}
	if len(s.counts) < constraint.MinDomains {
		s.least = 0
	}
	return s
}

// domains is every domain of eligible nodes, with no pods yet.
func (c *check) domains(constraint *model.Constraint) map[string]int {
	counts := map[string]int{}
	if c.pod.Selector == nil && len(c.pod.Object.Spec.NodeSelector) == 0 && !constraint.HonorTaints {
		for value := range c.cluster.Domains(constraint.Key) {
			counts[value] = 0
		}
		return counts
	}
	for _, node := range c.cluster.Nodes {
		if value, ok := node.Object.Labels[constraint.Key]; ok && c.eligible(constraint, node) {
			counts[value] = 0
		}
	}
	return counts
}

// eligible tells whether a node's pods count: the policies of the constraint
// leave out nodes that the pod cannot use anyway.
func (c *check) eligible(constraint *model.Constraint, node *model.Node) bool {
	return (constraint.IgnoreAffine || c.selects(node)) && (!constraint.HonorTaints || c.untolerated(node) == nil)
}

// spreadRefusal checks the hard constraints.
func (c *check) spreadRefusal(node *model.Node) string {
	for i := range c.spread {
		s := &c.spread[i]
		if !s.Hard {
			continue
		}
		value, ok := node.Object.Labels[s.Key]
		if !ok {
			return reasonSpreadLabel
		}
		after := s.counts[value]
		if s.SelfMatch {
			after++
		}
		if after-s.least > s.MaxSkew {
			return reasonSpread
		}
	}
	return ""
}

// crowding is how many selected pods a node's domains hold already, over the
// soft constraints. A node without the label counts as the most crowded.
func (c *check) crowding(node *model.Node) int64 {
	var sum int64
	for i := range c.spread {
		s := &c.spread[i]
		if s.Hard {
			continue
		}
		value, ok := node.Object.Labels[s.Key]
		if !ok {
			return math.MaxInt32
		}
		sum += int64(s.counts[value])
	}
	return sum
}
