// Package containers is what Docker's users know of containers, on a cluster:
// run, ps, port, stop, start, restart, kill, rm, wait, rename, diff, top, stats, debug. A
// container of "lighter run" is a pod that keeps its place when it is stopped:
// hack/decisions/0011-containers-as-docker-users-know-them.md.
//
//   - cluster.go  what the verbs work with; finding pods; following one
//   - options.go network.go ports.go security.go volumes.go mounts.go health.go values.go
//     flags of "run" as a pod; name.go makes up names
//   - volumehost.go  keeps those that use a named volume together
//   - run.go      create, wait, attach, exit code; stage.go progress.go what it waits for
//   - attach.go  the container's streams and the terminal
//   - secret.go   the user's login at the image's registry, for the pod
//   - request.go life.go  what start, stop, restart and kill ask of the agent
//   - remove.go   rm, wait and rename
//   - ps.go row.go  the list; port.go  where ports are published
//   - inside.go stats.go  diff and top, which agents answer; usage
//   - debug.go    a shell where a container has failed
package containers
