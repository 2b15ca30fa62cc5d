package lifecycle

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/tools/cache"

	"lighter.dev/lighter/controller/reconcile"
)

const (
	// rediscovery is how long a new kind of objects may go unnoticed.
	rediscovery = time.Minute
	// patience is how long the start waits for the caches. Afterwards collection works
	// without the missing kinds: that an owner is absent is always checked with the API.
	patience = 30 * time.Second
)

// notCollected are kinds that neither own nor are owned and change all the time.
var notCollected = []schema.GroupResource{
	{Group: "", Resource: "events"}, {Group: "events.k8s.io", Resource: "events"}, {Group: "", Resource: "componentstatuses"},
}

// Collector deletes objects whose owners are gone (background), holds owners back
// until their dependents are gone (foreground, by the finalizer foregroundDeletion),
// or sets dependents free (orphan): the deletion modes of the Kubernetes API.
type Collector struct {
	Deps
	metadata  metadata.Interface
	discovery Discovery
	typed     map[schema.GroupVersionResource]cache.SharedIndexInformer
	graph     *graph
	runner    *reconcile.Runner

	mu       sync.Mutex
	monitors map[schema.GroupVersionResource]*monitor
	kinds    map[schema.GroupKind]resource
	started  time.Time
}

// monitor feeds one kind of objects into the graph.
type monitor struct {
	synced cache.InformerSynced
	stop   context.CancelFunc
}

// NewCollector makes a collector. Kinds in typed are read from those informers, which
// exist anyway; for all others it keeps a cache of metadata only.
func NewCollector(d Deps, objects metadata.Interface, kinds Discovery, typed map[schema.GroupVersionResource]cache.SharedIndexInformer) *Collector {
	c := &Collector{
		Deps: d, metadata: objects, discovery: kinds, typed: typed, graph: newGraph(),
		monitors: map[schema.GroupVersionResource]*monitor{}, kinds: map[schema.GroupKind]resource{},
	}
	c.runner = reconcile.New("garbage", c.sync, d.Log)
	c.runner.WaitFor(c.ready)
	return c
}

// Run collects until ctx ends.
func (c *Collector) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var group sync.WaitGroup
	defer group.Wait()
	defer cancel()
	c.mu.Lock()
	c.started = time.Now()
	c.mu.Unlock()
	group.Go(func() {
		tick := time.NewTicker(rediscovery)
		defer tick.Stop()
		for {
			c.refresh(ctx, &group)
			next := tick.C
			if !c.discovered() {
				next = time.After(time.Second) // the API is not there yet
			}
			select {
			case <-ctx.Done():
				return
			case <-next:
			}
		}
	})
	return c.runner.Run(ctx, 4)
}

func (c *Collector) discovered() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.monitors) > 0
}

// ready tells whether work may begin.
func (c *Collector) ready() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.monitors) == 0 {
		return false
	}
	if time.Since(c.started) > patience {
		return true
	}
	for _, m := range c.monitors {
		if !m.synced() {
			return false
		}
	}
	return true
}

// refresh starts monitors for kinds that are new and stops those of kinds that are gone.
func (c *Collector) refresh(ctx context.Context, group *sync.WaitGroup) {
	kinds, err := discoverResources(c.discovery)
	if err != nil && ctx.Err() == nil {
		c.Log.Warn("garbage collection does not see all kinds", "error", err)
	}
	if len(kinds) == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	seen := map[schema.GroupVersionResource]bool{}
	for _, kind := range kinds {
		if !kind.can("list", "watch", "delete", "patch") || slices.Contains(notCollected, kind.GroupResource()) {
			continue
		}
		seen[kind.GroupVersionResource] = true
		c.kinds[schema.GroupKind{Group: kind.Group, Kind: kind.kind}] = kind
		if c.monitors[kind.GroupVersionResource] != nil {
			continue
		}
		m, err := c.monitor(ctx, kind, group)
		if err != nil {
			c.Log.Error("garbage collection cannot watch a kind", "kind", kind.GroupResource(), "error", err)
			continue
		}
		c.monitors[kind.GroupVersionResource] = m
	}
	if err != nil {
		return // a group that did not answer is not gone
	}
	for gvr, m := range maps.Clone(c.monitors) {
		if !seen[gvr] {
			m.stop()
			delete(c.monitors, gvr)
		}
	}
}

// monitor starts feeding one kind into the graph.
func (c *Collector) monitor(ctx context.Context, kind resource, group *sync.WaitGroup) (*monitor, error) {
	informer, shared := c.typed[kind.GroupVersionResource]
	if !shared {
		informer = metadatainformer.NewFilteredMetadataInformer(c.metadata, kind.GroupVersionResource, metav1.NamespaceAll, 0, cache.Indexers{}, nil).Informer()
		if err := informer.SetTransform(slim); err != nil {
			return nil, fmt.Errorf("cache metadata: %w", err)
		}
	}
	handle, err := informer.AddEventHandler(c.handler(kind))
	if err != nil {
		return nil, fmt.Errorf("watch: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	if !shared {
		group.Go(func() { informer.RunWithContext(ctx) })
		return &monitor{synced: handle.HasSynced, stop: cancel}, nil
	}
	context.AfterFunc(ctx, func() { _ = informer.RemoveEventHandler(handle) })
	return &monitor{synced: handle.HasSynced, stop: cancel}, nil
}

// slim keeps of an object's metadata what a vertex needs.
func slim(obj any) (any, error) {
	full, ok := obj.(*metav1.PartialObjectMetadata)
	if !ok {
		return obj, nil
	}
	return &metav1.PartialObjectMetadata{TypeMeta: full.TypeMeta, ObjectMeta: metav1.ObjectMeta{
		Name: full.Name, Namespace: full.Namespace, UID: full.UID, ResourceVersion: full.ResourceVersion,
		DeletionTimestamp: full.DeletionTimestamp, Finalizers: full.Finalizers, OwnerReferences: full.OwnerReferences,
	}}, nil
}

func (c *Collector) handler(kind resource) cache.ResourceEventHandler {
	seen := func(obj any) {
		if object, ok := obj.(metav1.Object); ok {
			c.observe(newVertex(kind, object))
		}
	}
	return cache.ResourceEventHandlerFuncs{
		AddFunc:    seen,
		UpdateFunc: func(_, obj any) { seen(obj) },
		DeleteFunc: func(obj any) {
			if object, ok := reconcile.Object[metav1.Object](obj); ok {
				c.observeDeletion(object.GetUID())
			}
		},
	}
}

// observe puts an object's new state into the graph and enqueues whom it may concern.
func (c *Collector) observe(v *vertex) {
	old := c.graph.put(v)
	if old != nil && old.same(v) {
		return
	}
	if len(v.owners) > 0 || v.deleting {
		c.enqueue(v.uid)
	}
	if v.deleting && v.foreground {
		c.enqueueAll(c.graph.dependentsOf(v.uid))
	}
	c.enqueueWaiting(v)
	if old != nil {
		c.enqueueWaiting(old) // an owner that it no longer names may be free to go
	}
}

func (c *Collector) observeDeletion(uid types.UID) {
	old := c.graph.remove(uid)
	if old == nil {
		return
	}
	c.enqueueAll(c.graph.dependentsOf(uid))
	c.enqueueWaiting(old)
}

// enqueueWaiting enqueues the owners of v that wait for their dependents.
func (c *Collector) enqueueWaiting(v *vertex) {
	for _, ref := range v.owners {
		if owner := c.graph.get(ref.UID); owner != nil && owner.deleting {
			c.enqueue(owner.uid)
		}
	}
}

func (c *Collector) enqueueAll(all []*vertex) {
	for _, v := range all {
		c.enqueue(v.uid)
	}
}

func (c *Collector) enqueue(uid types.UID) { c.runner.Enqueue(string(uid)) }
