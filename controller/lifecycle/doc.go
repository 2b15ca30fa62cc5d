// Package lifecycle holds the reconcilers that end things: what belongs to a host
// that went away, to an owner that was deleted, or to a namespace that is going.
//
//	Nodes       leases → Ready=Unknown, taints, eviction           nodes.go decide.go evict.go
//	PodGC       pods of deleted nodes, old terminated pods         podgc.go
//	Collector   garbage collection by owner references             collector.go graph.go dependents.go
//	Namespaces  deletes the content of a namespace, then finalizes namespaces.go
//
// # A lost host
//
// Agents renew their lease every second. A node whose lease did not change for Grace
// (measured on this process's monotonic clock, never by comparing clocks of two
// machines) is lost: its Ready condition becomes Unknown, it is tainted
// node.kubernetes.io/unreachable, its pods are marked not ready and evicted, that is
// deleted gracefully: their controllers replace them at once, and the agent, should
// it come back, ends them properly.
//
// Kubernetes' admission plugin DefaultTolerationSeconds gives every pod 300 s before
// eviction. Lighter does not run that plugin: a pod without a toleration of its own
// is evicted after EvictAfterLost (0) or EvictAfterNotReady (5 min), set here, and a
// pod that says how long it tolerates gets that long. So failover takes seconds, and
// a manifest that wants Kubernetes' patience writes it down.
//
// If more than MaxLost of all nodes fall silent together, the likelier explanation is
// that we are the ones cut off: nobody is evicted until that has passed.
package lifecycle
