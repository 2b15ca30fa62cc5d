package lifecycle

import (
	"slices"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// vertex is what garbage collection knows about one object.
type vertex struct {
	resource   resource
	namespace  string
	name       string
	uid        types.UID
	owners     []metav1.OwnerReference
	deleting   bool // has a deletion timestamp
	foreground bool // has the finalizer foregroundDeletion
	orphan     bool // has the finalizer orphan
}

func newVertex(r resource, obj metav1.Object) *vertex {
	finalizers := obj.GetFinalizers()
	return &vertex{
		resource: r, namespace: obj.GetNamespace(), name: obj.GetName(), uid: obj.GetUID(), owners: obj.GetOwnerReferences(),
		deleting:   obj.GetDeletionTimestamp() != nil,
		foreground: slices.Contains(finalizers, metav1.FinalizerDeleteDependents),
		orphan:     slices.Contains(finalizers, metav1.FinalizerOrphanDependents),
	}
}

// same tells whether two states of one object are alike for garbage collection.
func (v *vertex) same(o *vertex) bool {
	return v.deleting == o.deleting && v.foreground == o.foreground && v.orphan == o.orphan &&
		slices.EqualFunc(v.owners, o.owners, func(a, b metav1.OwnerReference) bool {
			return a.UID == b.UID && a.Name == b.Name && a.Kind == b.Kind && a.APIVersion == b.APIVersion && blocks(a) == blocks(b)
		})
}

func blocks(ref metav1.OwnerReference) bool {
	return ref.BlockOwnerDeletion != nil && *ref.BlockOwnerDeletion
}

// graph holds every object that can own or be owned. Vertices are never changed once
// they are in it, only replaced.
type graph struct {
	mu         sync.RWMutex
	objects    map[types.UID]*vertex
	dependents map[types.UID]map[types.UID]struct{} // also of owners that are not (yet) known
}

func newGraph() *graph {
	return &graph{objects: map[types.UID]*vertex{}, dependents: map[types.UID]map[types.UID]struct{}{}}
}

// put adds or replaces v and returns what was there.
func (g *graph) put(v *vertex) (old *vertex) {
	g.mu.Lock()
	defer g.mu.Unlock()
	old = g.objects[v.uid]
	if old != nil {
		g.unlink(old)
	}
	g.objects[v.uid] = v
	for _, ref := range v.owners {
		if g.dependents[ref.UID] == nil {
			g.dependents[ref.UID] = map[types.UID]struct{}{}
		}
		g.dependents[ref.UID][v.uid] = struct{}{}
	}
	return old
}

// remove takes the object out and returns what was there.
func (g *graph) remove(uid types.UID) (old *vertex) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if old = g.objects[uid]; old != nil {
		g.unlink(old)
		delete(g.objects, uid)
	}
	return old
}

func (g *graph) unlink(v *vertex) {
	for _, ref := range v.owners {
		delete(g.dependents[ref.UID], v.uid)
		if len(g.dependents[ref.UID]) == 0 {
			delete(g.dependents, ref.UID)
		}
	}
}

// get returns the object, or nil.
func (g *graph) get(uid types.UID) *vertex {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.objects[uid]
}

// dependentsOf lists the objects that name uid as their owner.
func (g *graph) dependentsOf(uid types.UID) []*vertex {
	g.mu.RLock()
	defer g.mu.RUnlock()
	all := make([]*vertex, 0, len(g.dependents[uid]))
	for id := range g.dependents[uid] {
		all = append(all, g.objects[id])
	}
	return all
}

// ownerOf returns the vertex that ref of an object in namespace means; nil if it is
// not known, or if the reference does not fit the object with that UID (an owner in
// another namespace does not count).
func (g *graph) ownerOf(ref metav1.OwnerReference, namespace string) *vertex {
	owner := g.get(ref.UID)
	if owner == nil || owner.name != ref.Name || owner.resource.kind != ref.Kind ||
		owner.namespace != "" && owner.namespace != namespace {
		return nil
	}
	return owner
}
