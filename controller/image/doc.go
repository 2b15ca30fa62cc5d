// Package image is the control plane's part in building images: it chooses the
// agent that builds (pick.go) or that is asked for the result (holder.go), and
// keeps the conditions of an Image truthful while no agent does (image.go).
//
// # Who writes an Image's status
//
// The agent that builds is the writer of all of status. This package writes in
// two situations only, in which no such agent exists:
//
//   - status has no condition at all, because the Image was never built: it
//     sets Built=Unknown, reason WaitingForContext.
//   - Building is True and the node that builds is gone or not ready: it sets
//     Building=False, reason BuildCancelled. Should that agent have survived,
//     its next write corrects this.
//
// Both are optimistic updates (by resource version), so that they lose against
// an agent that wrote in the meantime; an agent retries on conflict.
//
// The node of a running build is known from the choice made here or, after a
// restart, from the words "host <name> builds" in the message of Building,
// where the agent puts them for people to read as well.
package image
