package main

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"lighter.dev/lighter/agent/image"
	"lighter.dev/lighter/agent/image/reclaim"
)

// reclaimDisk keeps the disk of images from getting full, until ctx ends.
func (h *host) reclaimDisk(ctx context.Context) error {
	world := &hostImages{Store: reclaim.NewStore(h.store, h.dir("images"), h.wants), host: h}
	reclaimer, err := reclaim.New(h.options.imageGC, h.dir("images-used.json"), world, h.logOf("reclaim"))
	if err != nil {
		return err
	}
	return reclaimer.Run(ctx)
}

// wants tells whether pods of this host have an image or will have it.
func (h *host) wants(sum image.Summary) bool {
	digests, names := h.wantedImages()
	return digests[sum.Digest] || slices.ContainsFunc(sum.Names, func(name string) bool { return names[name] })
}

// hostImages are the world of a reclaim.Reclaimer.
type hostImages struct {
	*reclaim.Store
	host *host
}

var _ reclaim.World = (*hostImages)(nil)

// TrimCache implements reclaim.World.
func (i *hostImages) TrimCache(ctx context.Context) error { return i.host.builder.Trim(ctx) }

// Warn implements reclaim.World.
func (i *hostImages) Warn(reason, message string) {
	node := &corev1.ObjectReference{APIVersion: "v1", Kind: "Node", Name: i.host.options.nodeName}
	if found, err := i.host.informers.Core().V1().Nodes().Lister().Get(node.Name); err == nil {
		node.UID = found.UID
	}
	i.host.recorder.Event(node, corev1.EventTypeWarning, reason, message)
}
