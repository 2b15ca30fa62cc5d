package fit

import "lighter.dev/lighter/controller/scheduler/model"

// domain is one value of a topology key: one zone, one host.
type domain struct{ key, value string }

func domainOf(node *model.Node, key string) (domain, bool) {
	value, ok := node.Object.Labels[key]
	return domain{key, value}, ok
}

// affinity is what inter-pod rules say about domains, for one pod.
type affinity struct {
	pod      *model.Pod
	near     map[domain]int   // pods that all required terms select
	first    bool             // there are none, and the pod would be its own neighbour
	far      map[domain]int   // pods that the anti-affinity terms select
	repelled map[domain]bool  // domains of pods whose anti-affinity selects this one
	liking   map[domain]int64 // sum of weights of preferred terms
}

// prepareAffinity returns nil if no rule concerns the pod.
func prepareAffinity(cluster *model.Cluster, pod *model.Pod) *affinity {
	var repelled map[domain]bool
	cluster.Repellers(func(set *model.Repeller) {
		for i := range set.Terms {
			if !cluster.Matches(&set.Terms[i], pod.Object.Namespace, pod.Object.Labels) {
				continue
			}
			if repelled == nil {
				repelled = map[domain]bool{}
			}
			eachDomain(set.Nodes, set.Terms[i].Key, func(at domain, _ int) { repelled[at] = true })
		}
	})
	if repelled == nil && len(pod.Affinity) == 0 && len(pod.AntiAffinity) == 0 && len(pod.PreferredPods) == 0 {
		return nil
	}
	a := &affinity{pod: pod, repelled: repelled, near: map[domain]int{}, far: map[domain]int{}, liking: map[domain]int64{}}
	a.findNear(cluster)
	for i := range pod.AntiAffinity {
		term := &pod.AntiAffinity[i]
		cluster.Selected(term, func(set *model.Alike) {
			eachDomain(set.Nodes, term.Key, func(at domain, pods int) { a.far[at] += pods })
		})
	}
	for i := range pod.PreferredPods {
		preferred := &pod.PreferredPods[i]
		cluster.Selected(&preferred.Term, func(set *model.Alike) {
			eachDomain(set.Nodes, preferred.Key, func(at domain, pods int) { a.liking[at] += preferred.Weight * int64(pods) })
		})
	}
	return a
}

// findNear counts the pods that match every required term: a neighbour has to
// satisfy all of them. The first pod of a set that wants to stay together has
// no neighbour yet; it may go anywhere if it matches its own terms.
func (a *affinity) findNear(cluster *model.Cluster) {
	terms := a.pod.Affinity
	if len(terms) == 0 {
		return
	}
	cluster.Selected(&terms[0], func(set *model.Alike) {
		for i := range terms[1:] {
			if !cluster.Matches(&terms[1+i], set.Namespace, set.Labels) {
				return
			}
		}
		for i := range terms {
			eachDomain(set.Nodes, terms[i].Key, func(at domain, pods int) { a.near[at] += pods })
		}
	})
	if len(a.near) > 0 {
		return
	}
	a.first = true
	for i := range terms {
		a.first = a.first && cluster.Matches(&terms[i], a.pod.Object.Namespace, a.pod.Object.Labels)
	}
}

// eachDomain calls visit with the domain of every node that exists and has the
// label.
func eachDomain(nodes map[*model.Node]int, key string, visit func(at domain, pods int)) {
	for node, pods := range nodes {
		if node.Object == nil {
			continue
		}
		if at, ok := domainOf(node, key); ok {
			visit(at, pods)
		}
	}
}

// refusal says why a node is out of the question, "" if it is not.
func (a *affinity) refusal(node *model.Node) string {
	for i := range a.pod.Affinity {
		at, ok := domainOf(node, a.pod.Affinity[i].Key)
		if !ok || !a.first && a.near[at] == 0 {
			return reasonAffinity
		}
	}
	for i := range a.pod.AntiAffinity {
		if at, ok := domainOf(node, a.pod.AntiAffinity[i].Key); ok && a.far[at] > 0 {
			return reasonAntiAffinity
		}
	}
	for at := range a.repelled {
		if value, ok := node.Object.Labels[at.key]; ok && value == at.value {
			return reasonRepelled
		}
	}
	return ""
}

// score is the weight of the preferred terms that the node meets.
func (a *affinity) score(node *model.Node) int64 {
	var sum int64
	seen := map[string]bool{}
	for i := range a.pod.PreferredPods {
		key := a.pod.PreferredPods[i].Key
		if seen[key] {
			continue // liking holds the sum of all terms with this key
		}
		seen[key] = true
		if at, ok := domainOf(node, key); ok {
			sum += a.liking[at]
		}
	}
	return sum
}
