// Package runtime runs a pod's containers with an OCI runtime (crun or runc)
// under conmon, and keeps what is needed to find them again.
//
// A container is three things on disk and two processes:
//
//   - StateDir/containers/<id>/ spec.json, record.json, what conmon leaves
//     there (oom) and the anonymous volumes. It is made first and removed last:
//     whatever exists of a container, its name is here. StateDir/exits/<id> is
//     the exit code, written by conmon with a rename.
//   - RunDir/bundles/<id>/ the OCI bundle: config.json, the mounted rootfs,
//     conmon's attach socket and control FIFOs. May be on a tmpfs.
//   - RunDir/oci/<id>/ the OCI runtime's own state.
//   - conmon, which holds the terminal or pipes, writes the log in CRI format
//     and waits for the exit; it is no child of the agent and outlives it.
//   - the container's first process.
//
// The hot path forks as little as it can: one conmon, which runs `runtime
// create`. A start is a hand-shake on the runtime's exec.fifo, a signal is a
// system call, a status is read from files, a delete removes directories.
//
// Walk: [New] → [Engine.PinNamespaces] → [Engine.PodCgroup] → [Engine.Create]
// (spec.go builds the OCI spec, conmon.go starts the supervisor) →
// [Engine.Start] → [Engine.Events] says that a state changed → [Engine.Status]
// → [Engine.Delete] → [Engine.UnpinNamespaces] → [Engine.RemovePodCgroup].
//
// The agent may die between any two steps. A step's trace is on disk before the
// step, so List shows it afterwards and Delete undoes it, finished or not.
package runtime
