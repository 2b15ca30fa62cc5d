package main

import (
	"context"
	"encoding/json"
	"slices"

	"github.com/opencontainers/go-digest"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"

	"lighter.dev/lighter/agent/image"
	"lighter.dev/lighter/agent/image/keep"
	lighterlisters "lighter.dev/lighter/api/client/listers/api/v1alpha1"
	"lighter.dev/lighter/api/v1alpha1"
)

// keepImages keeps on this host what of the cluster's images has to be here, until
// ctx ends.
func (h *host) keepImages(ctx context.Context) error {
	nodes, images := h.informers.Core().V1().Nodes(), h.images.Lighter().V1alpha1().Images()
	keeper := keep.New(&keptImages{
		self: h.options.nodeName, store: h.store, nodes: nodes.Lister(), images: images.Lister(),
		synced: images.Informer().HasSynced, wanted: h.wantedImages,
	}, h.logOf("keep"))
	for _, informer := range []cache.SharedIndexInformer{nodes.Informer(), images.Informer()} {
		handle, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc: func(any) { keeper.Wake() }, UpdateFunc: func(before, now any) {
				if concernsKeeping(before, now) {
					keeper.Wake()
				}
			}, DeleteFunc: func(any) { keeper.Wake() },
		})
		if err != nil {
			return err
		}
		defer func() { _ = informer.RemoveEventHandler(handle) }() // fails on foreign handles only
	}
	go h.whenImagesChange(ctx, keeper.Wake)
	return keeper.Run(ctx)
}

// concernsKeeping spares the keeper the heartbeats of nodes.
func concernsKeeping(before, now any) bool {
	a, ok := before.(*corev1.Node)
	b, _ := now.(*corev1.Node)
	return !ok || nodeReady(a) != nodeReady(b) || len(a.Status.Images) != len(b.Status.Images) ||
		!slices.EqualFunc(a.Status.Images, b.Status.Images, func(x, y corev1.ContainerImage) bool { return slices.Equal(x.Names, y.Names) })
}

// whenImagesChange calls back after each change of what this host holds.
func (h *host) whenImagesChange(ctx context.Context, call func()) {
	for {
		changed := h.store.Changed()
		call()
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// wantedImages are digests and full names that pods of this host have or will have.
func (h *host) wantedImages() (digests map[digest.Digest]bool, names map[string]bool) {
	digests, names = map[digest.Digest]bool{}, map[string]bool{}
	for _, picture := range h.pods.Pods() {
		pins := map[string]digest.Digest{}
		// The pod engine warns of an annotation that cannot be read.
		_ = json.Unmarshal([]byte(picture.Pod.Annotations[v1alpha1.DigestsAnnotation]), &pins)
		for _, pin := range pins {
			digests[pin] = true
		}
		for _, list := range [][]corev1.Container{picture.Pod.Spec.InitContainers, picture.Pod.Spec.Containers} {
			for _, c := range list {
				name, pin, err := image.Normalize(c.Image)
				if err != nil {
					continue // the pod says so
				}
				names[name] = true
				if pin != "" {
					digests[pin] = true
				}
			}
		}
	}
	return digests, names
}

// keptImages are the world of a keep.Keeper.
type keptImages struct {
	self   string
	store  *image.Store
	nodes  corelisters.NodeLister
	images lighterlisters.ImageLister
	synced cache.InformerSynced
	wanted func() (map[digest.Digest]bool, map[string]bool)
}

var _ keep.World = (*keptImages)(nil)

// View implements keep.World.
func (w *keptImages) View(ctx context.Context) (keep.View, error) {
	view := keep.View{Self: w.self, Synced: w.synced(), Holders: map[digest.Digest][]string{}, Held: map[digest.Digest]bool{}}
	images, err := w.images.List(labels.Everything())
	if err != nil {
		return view, err
	}
	for _, img := range images {
		view.Images = append(view.Images, keptImage(img))
	}
	nodes, err := w.nodes.List(labels.Everything())
	if err != nil {
		return view, err
	}
	for _, node := range nodes {
		if node.Name == w.self || nodeReady(node) {
			view.Nodes = append(view.Nodes, node.Name)
		}
		if node.Name == w.self {
			continue
		}
		for _, dgst := range digestsOf(node) {
			view.Holders[digest.Digest(dgst)] = append(view.Holders[digest.Digest(dgst)], node.Name)
		}
	}
	return view, w.look(ctx, &view)
}

// look adds what is so on this host.
func (w *keptImages) look(ctx context.Context, view *keep.View) error {
	list, err := w.store.List(ctx)
	if err != nil {
		return err
	}
	digests, names := w.wanted()
	if view.Used, err = w.store.Used(ctx); err != nil {
		return err
	}
	for _, sum := range list {
		view.Held[sum.Digest] = true
		if digests[sum.Digest] || slices.ContainsFunc(sum.Names, func(name string) bool { return names[name] }) {
			view.Used[sum.Digest] = true
		}
	}
	records, err := w.store.Built(ctx)
	for _, b := range records {
		view.Records = append(view.Records, keep.Record{Name: keep.Name{Namespace: b.Namespace, Name: b.Name, Digest: b.Digest}, Version: b.Version})
	}
	return err
}

// keptImage is an Image object as far as it has to be kept.
func keptImage(img *v1alpha1.Image) keep.Image {
	out := keep.Image{Namespace: img.Namespace, Digest: digest.Digest(img.Status.Digest), Node: img.Status.NodeName}
	for _, tag := range img.Spec.Tags {
		if name, err := v1alpha1.NormalizeTag(tag); err == nil {
			out.Names = append(out.Names, name)
		}
	}
	return out
}

// Ensure implements keep.World.
func (w *keptImages) Ensure(ctx context.Context, name keep.Name) error {
	_, err := w.store.Ensure(ctx, image.Request{Namespace: name.Namespace, Ref: name.Name, Pin: name.Digest, Policy: corev1.PullNever})
	return err
}

// Drop implements keep.World.
func (w *keptImages) Drop(ctx context.Context, records []keep.Record) error {
	gone := make([]image.Built, 0, len(records))
	for _, rec := range records {
		gone = append(gone, image.Built{Namespace: rec.Namespace, Name: rec.Name.Name, Digest: rec.Digest, Version: rec.Version})
	}
	return w.store.DropBuilt(ctx, gone)
}

// nodeReady tells whether the control plane hears of a node.
func nodeReady(node *corev1.Node) bool {
	return slices.ContainsFunc(node.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	})
}
