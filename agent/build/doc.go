// Package build turns Image objects into container images: BuildKit in this
// process, on the content store, snapshots and leases of package image.
//
// How a build goes: the client (package buildclient) upgrades an HTTP
// connection to POST /build/{namespace}/{name}. Handler answers 101 and serves
// BuildKit's control API (gRPC) on that connection: the client's Solve call
// starts the build, its Session call carries the folder (only what changed), its
// Status call the progress. What is built and what it is called is decided by
// the Image object alone, how it is done by the client: a request that goes
// beyond is refused.
//
//   - builder.go: Builder and its life.
//   - turn.go, limits.go: which builds wait, what RUN steps may take.
//   - engine.go: BuildKit assembled from our parts, made at the first build.
//   - handler.go, control.go: the connection and the calls on it.
//   - bridge.go: the same build for clients of BuildKit's gateway API.
//   - scope.go: sessions and builds of one Image are out of others' reach.
//   - request.go: from an Image's spec to BuildKit's request. Pure.
//   - asked.go: what a client may ask for. Pure.
//   - inline.go: the context of an Image that is a Dockerfile and no more.
//   - frontend.go: the Dockerfile frontend, with base images from the cluster.
//   - imagestore.go: results are staged until the whole build has succeeded.
//   - make.go: content that comes from an archive or a container instead.
//   - report.go, journal.go: status, Events, and how they survive a crash.
//   - failure.go: what a person reads when a step fails. Pure.
//   - network.go: how RUN steps reach the network.
//   - usage.go: how much the build cache takes.
//   - sweep.go: what a killed agent leaves, removed.
//
// Single writer: while an agent builds an Image, only that agent writes the
// Image's status.
package build
