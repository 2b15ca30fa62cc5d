package main

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
)

// TestNeighbours: whoever may answer is asked, also right after a start, when gossip
// has not heard of anybody.
func TestNeighbours(t *testing.T) {
	const alive, lost, unheard = "alive", "lost", "unheard"
	tests := []struct {
		name, gossip string
		ready        corev1.ConditionStatus
		want         bool
	}{
		{"answers", alive, corev1.ConditionTrue, true},
		{"answers, though it does not reach the control plane", alive, corev1.ConditionUnknown, true},
		{"starts beside us", unheard, corev1.ConditionTrue, true},
		{"off since before our start", unheard, corev1.ConditionUnknown, false},
		{"has just gone", lost, corev1.ConditionTrue, false},
		{"self", alive, corev1.ConditionTrue, false},
	}
	nodes := cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{})
	states := map[string]string{}
	for _, tt := range tests {
		states[tt.name] = tt.gossip
		err := nodes.Add(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: tt.name}, Status: corev1.NodeStatus{
			Addresses:  []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "10.0.0.1"}},
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: tt.ready}},
		}})
		if err != nil {
			t.Fatal(err)
		}
	}
	is := func(state string) func(string) bool {
		return func(node string) bool { return states[node] == state }
	}
	var found []string
	for _, peer := range (peerHolders{nodes: nodes, self: "self", alive: is(alive), lost: is(lost)}).Neighbours(t.Context()) {
		found = append(found, peer.Name)
	}
	for _, tt := range tests {
		if slices.Contains(found, tt.name) != tt.want {
			t.Errorf("a node that %s: asked is %v", tt.name, !tt.want)
		}
	}
}
