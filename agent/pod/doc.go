// Package pod brings one pod from "assigned to this node" to "gone", and keeps
// it as its spec wants it in between.
//
// How to read it:
//
//	state.go    what a worker knows: View (wanted) and State (observed)
//	next.go     Next, the pure step function: one look, one Action
//	ending.go   the part of Next for pods that end
//	single.go   the part of Next for containers of "lighter run"
//	worker.go   one goroutine a pod: look, decide, act, report, wait
//	hooks.go    the ordered set-up of a pod, undone in reverse
//	pull.go start.go stop.go  what actions on one container do
//	report.go   State as the API's container statuses
//	manager.go  the workers of this host; adoption after a restart; sweeping
//	lookup.go   what exec, logs, attach and port-forward ask for
//
// Long operations (pulls, starts, graceful stops) run beside the worker; they
// mark what they work on as busy and post their result back, so that State is
// touched by the worker alone and Next never decides on something in flight.
//
// Nothing here is remembered over a restart of the agent but what the engine
// remembers (which containers exist, with their specs) and the checkpoint of
// agent/assign (which pods are wanted). Every set-up hook is idempotent, so a
// restarted agent simply runs them again.
package pod
