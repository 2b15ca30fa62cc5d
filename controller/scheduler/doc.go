// Package scheduler gives every pod a node: it watches, decides and binds.
//
//   - model: the cluster as decisions need it, kept up to date event by event;
//   - fit: the decision, a pure function over model;
//   - queue: the pods that wait, and when to try them again;
//   - this package: the loop (scheduler.go), the informers' events (events.go),
//     and what is written to the API (bind.go).
//
// One goroutine decides, one pod after another, in about 0.1 ms each even for
// thousands of nodes. A pod that got a node is assumed to be there at once, so
// that the next decision counts it; the binding is written meanwhile by another
// goroutine. If that fails, the assumption is taken back and the pod is tried
// again.
//
// Writes: pods/binding, and of pods/status the condition PodScheduled while a
// pod has no node. It looks after pods whose spec.schedulerName is
// "default-scheduler", and after none that has scheduling gates.
//
// There is no preemption: a pod that fits nowhere waits, whatever its priority.
package scheduler
