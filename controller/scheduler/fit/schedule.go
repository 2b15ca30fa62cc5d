package fit

import (
	"fmt"
	"slices"
	"strings"

	"lighter.dev/lighter/controller/scheduler/model"
)

const (
	// sampleFloor is the least number of feasible nodes to rank.
	sampleFloor = 100
	// In a cluster of n nodes, (sampleShare - n/sampleSlope) percent are
	// ranked, at least sampleLeast percent: the larger the cluster, the less a
	// slightly better node matters.
	sampleShare, sampleSlope, sampleLeast = 50, 100, 5
)

// Decision is where a pod goes.
type Decision struct {
	Node string // "" if it fits nowhere
	// Examined is how many nodes were looked at; the next decision should
	// begin that much further.
	Examined int
	// Failure explains an empty Node.
	Failure *Failure
}

// Failure says why a pod fits nowhere.
type Failure struct {
	Nodes   int            // how many there are
	Reasons map[string]int // nodes by reason; a node may have several
	// Hope are the changes of the cluster after which another try may succeed.
	Hope model.Change
}

// Error reads like "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had
// untolerated taint(s)."
func (f *Failure) Error() string {
	if f.Nodes == 0 {
		return "no nodes available to schedule pods"
	}
	reasons := make([]string, 0, len(f.Reasons))
	for reason, n := range f.Reasons {
		reasons = append(reasons, fmt.Sprintf("%d %s", n, reason))
	}
	slices.Sort(reasons)
	return fmt.Sprintf("0/%d nodes are available: %s.", f.Nodes, strings.Join(reasons, ", "))
}

// Scratch is memory that decisions reuse. It carries nothing from one to the
// next.
type Scratch struct {
	feasible []candidate
}

type candidate struct {
	node  *model.Node
	score int64
	raw   [normalised]int64
}

// Schedule decides. start is the index of the first node to look at.
func Schedule(cluster *model.Cluster, pod *model.Pod, start int, scratch *Scratch) Decision {
	check := prepare(cluster, pod)
	n := len(cluster.Nodes)
	wanted := sample(n)
	feasible := scratch.feasible[:0]
	examined := 0
	for ; examined < n && len(feasible) < wanted; examined++ {
		node := cluster.Nodes[(start+examined)%n]
		if check.passes(node) {
			feasible = append(feasible, candidate{node: node})
		}
	}
	scratch.feasible = feasible
	if len(feasible) == 0 {
		return Decision{Examined: examined, Failure: check.explain()}
	}
	return Decision{Node: check.best(feasible).Name, Examined: examined}
}

// sample is how many feasible nodes to find before ranking them.
func sample(nodes int) int {
	if nodes <= sampleFloor {
		return nodes
	}
	percent := max(sampleLeast, sampleShare-nodes/sampleSlope)
	return max(sampleFloor, nodes*percent/100)
}
