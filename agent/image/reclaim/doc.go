// Package reclaim frees disk space before the disk of images is full, as the kubelet
// does: above a high watermark it removes the images that were used least lately
// until a low one is reached, and at any time those that nobody has used for long.
// What containers of the host use is never removed, nor what the cluster made (package
// keep looks after that), nor what pods bound to the host or a build have just asked for.
//
//   - decide.go: how much has to go, and in which order.
//   - used.go: when each image was used last, over restarts.
//   - reclaimer.go: looks, removes, tells. store.go: what it looks at.
package reclaim
