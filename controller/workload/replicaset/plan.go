package replicaset

import (
	"hash/fnv"
	"strconv"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/rand"
)

// burst caps the pods created or deleted in one pass; the rest follows once the
// cache has shown these.
const burst = 500

// step is what to do next for one ReplicaSet.
type step struct {
	create int           // pods to create
	remove []*corev1.Pod // pods to delete
}

// plan compares the wanted number of replicas with the active pods. related
// returns the pods of all sibling ReplicaSets (those of the same Deployment),
// which say what nodes are crowded; it is asked only if pods have to go.
func plan(rs *appsv1.ReplicaSet, active []*corev1.Pod, related func() []*corev1.Pod, now time.Time) step {
	if rs.DeletionTimestamp != nil {
		return step{}
	}
	diff := len(active) - replicas(rs)
	switch {
	case diff < 0:
		return step{create: min(-diff, burst)}
	case diff > 0:
		return step{remove: rankForDeletion(active, related(), now)[:min(diff, burst)]}
	}
	return step{}
}

// replicas is spec.replicas, which the API server defaults to 1.
func replicas(rs *appsv1.ReplicaSet) int {
	if rs.Spec.Replicas == nil {
		return 1
	}
	return int(*rs.Spec.Replicas)
}

// isActive tells pods that count as replicas: neither finished nor on their way
// out. A failed pod is therefore replaced, and stays for its owner to look at
// until it is garbage-collected.
func isActive(pod *corev1.Pod) bool {
	return pod.DeletionTimestamp == nil && pod.Status.Phase != corev1.PodSucceeded && pod.Status.Phase != corev1.PodFailed
}

// isTerminating tells pods that were asked to stop and have not finished yet.
func isTerminating(pod *corev1.Pod) bool {
	return pod.DeletionTimestamp != nil && pod.Status.Phase != corev1.PodSucceeded && pod.Status.Phase != corev1.PodFailed
}

// podNames picks n free names for new pods, the same ones for the same state of
// the ReplicaSet: "<name>-<five characters>", as users know them.
func podNames(rs *appsv1.ReplicaSet, n int, taken func(name string) bool) []string {
	// 63 is the longest DNS label, which a pod's name becomes as its host name.
	prefix := rs.Name
	if longest := 63 - 6; len(prefix) > longest {
		prefix = prefix[:longest]
	}
	names := make([]string, 0, n)
	seen := make(map[string]bool, n)
	for i := 0; len(names) < n; i++ {
		name := prefix + "-" + suffix(rs, i)
		if !seen[name] && !taken(name) {
			names = append(names, name)
		}
		seen[name] = true
	}
	return names
}

// suffix hashes the state and a counter to five characters of the alphabet
// (without vowels, so that no words appear) that Kubernetes uses in names.
func suffix(rs *appsv1.ReplicaSet, i int) string {
	hash := fnv.New64a()
	hash.Write([]byte(string(rs.UID) + "/" + rs.ResourceVersion + "/" + strconv.Itoa(i)))
	encoded := rand.SafeEncodeString(strconv.FormatUint(hash.Sum64(), 36))
	// The leading digit of a 64-bit number in base 36 is skewed: take the tail.
	if len(encoded) < 5 {
		encoded = "bcdfg"[len(encoded):] + encoded
	}
	return encoded[len(encoded)-5:]
}
