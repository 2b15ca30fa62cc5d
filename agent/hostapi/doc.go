// Package hostapi serves what can be asked of this host's images, containers and disk: the
// paths of package agentapi. The handler is mounted on the agent's HTTPS endpoint,
// for the API server, and on its local sockets. It trusts its caller: who may ask
// is decided where it is mounted.
//
//   - handler.go: the parts that do the work, as interfaces; the table of paths.
//   - images.go, containers.go: answers of one document. streams.go: answers that take long.
//   - progress.go: the lines of a stream.
//   - status.go: errors as metav1.Status, shared with package build.
package hostapi
