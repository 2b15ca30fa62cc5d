// Package fit decides on which node a pod goes: Schedule is a pure function of
// a model.Cluster, a model.Pod and the index of the node to begin with.
//
// filter.go says on which nodes the pod may run and why not on the others;
// score.go ranks those; affinity.go and spread.go prepare what inter-pod
// affinity and topology spread need to know once a pod. In a large cluster only
// a sample of the nodes is looked at: it begins where the last decision ended,
// so that all nodes take part in turn.
//
// Reasons and their wording are those of kube-scheduler, which people and
// tools know. Not here: preemption of pods with lower priority (a pod that fits
// nowhere waits), volumes' topology, preferred affinity of pods that run
// already towards the new one.
package fit
