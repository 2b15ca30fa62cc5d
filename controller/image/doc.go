// Package image is the control plane's part in images.
//
//	pick.go        which agent builds one
//	holder.go      which agent is asked about its content
//	builds.go      what is built where, as far as known
//	image.go       keeps the conditions of an Image truthful while no agent does
//	tag.go         Images that are other names
//	build.go       builds what needs no client: inline, git and ConfigMap sources
//	configmaps.go  watches the ConfigMaps that Images are built from
//	commits.go     asks repositories which commit an Image would be built from
//	remote.go      how they are asked: git ls-remote
//	firstseen.go   how old a generation is
//
// # Who writes an Image's status
//
// The agent that builds it, or makes its content, is the writer of all of status
// but contextHash. This package writes that field, and others in situations only
// in which there is no such agent:
//
//   - There is no content yet: Built is Unknown and says what has to happen
//     (WaitingForContext, WaitingForContent) or what keeps the cluster from
//     building (WaitingForBuilder).
//   - Building is True and the node that builds is gone or not ready: it sets
//     Building=False, reason BuildCancelled. Should that agent have survived,
//     its next write corrects this.
//   - spec.source.image: digest and all else are what the reference says; no agent
//     is needed for that (Tagged).
//
// All are optimistic updates (by resource version), so that they lose against
// an agent that wrote in the meantime; an agent retries on conflict. contextHash
// is in patches of its own.
//
// The node of a running build is known from the choice made here or, after a
// restart, from the words "host <name> builds" in the message of Building,
// where the agent puts them for people to read as well.
//
// # Builds without a client
//
// They go the way of a client's: through the subresource images/build. When one
// fails the status says so, and it is not repeated until the spec, the ConfigMap or
// the commit of a repository with a pollInterval is different; when it could not be tried to the end, it is, with
// growing pauses.
package image
