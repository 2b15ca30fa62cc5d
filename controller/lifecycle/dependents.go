package lifecycle

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/metadata"
)

// sync decides about one object. The graph may be behind, so it only raises the
// suspicion; whatever is written is decided from the live object, with its UID (and
// for deletions and lists its version) as a precondition.
func (c *Collector) sync(ctx context.Context, key string) error {
	v := c.graph.get(types.UID(key))
	switch {
	case v == nil:
		return nil
	case v.deleting && v.orphan:
		return c.orphanDependents(ctx, v)
	case v.deleting && v.foreground:
		return c.awaitDependents(ctx, v)
	case v.deleting || len(v.owners) == 0:
		return nil
	}
	if verdict, err := c.judge(ctx, v.namespace, v.owners); err != nil || verdict.healthy() {
		return err
	}
	live, err := c.client(v).Get(ctx, v.name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) || err == nil && live.UID != v.uid {
		return nil // gone; its deletion event is on the way
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", v, err)
	}
	return c.settle(ctx, newVertex(v.resource, live), live)
}

// String names the object in errors and logs.
func (v *vertex) String() string {
	return v.resource.GroupResource().String() + " " + v.namespace + "/" + v.name
}

func (c *Collector) client(v *vertex) metadata.ResourceInterface {
	if v.namespace == "" {
		return c.metadata.Resource(v.resource.GroupVersionResource)
	}
	return c.metadata.Resource(v.resource.GroupVersionResource).Namespace(v.namespace)
}

// verdict sorts the owners of an object.
type verdict struct {
	solid    int
	dangling []types.UID // gone
	waiting  []types.UID // being deleted in the foreground, waiting for this object
}

func (v verdict) healthy() bool { return v.solid > 0 && len(v.dangling)+len(v.waiting) == 0 }

// judge asks the graph about each owner, and the API about those the graph does not know.
func (c *Collector) judge(ctx context.Context, namespace string, owners []metav1.OwnerReference) (verdict, error) {
	var result verdict
	for _, ref := range owners {
		owner := c.graph.ownerOf(ref, namespace)
		if owner == nil {
			var err error
			if owner, err = c.liveOwner(ctx, ref, namespace); err != nil {
				return verdict{}, err
			}
		}
		switch {
		case owner == nil:
			result.dangling = append(result.dangling, ref.UID)
		case owner.deleting && owner.foreground:
			result.waiting = append(result.waiting, ref.UID)
		default:
			result.solid++
		}
	}
	return result, nil
}

// liveOwner asks the API for an owner; nil means that it does not exist.
func (c *Collector) liveOwner(ctx context.Context, ref metav1.OwnerReference, namespace string) (*vertex, error) {
	gv, err := schema.ParseGroupVersion(ref.APIVersion)
	if err != nil {
		return nil, fmt.Errorf("owner %s %s: %w", ref.Kind, ref.Name, err)
	}
	c.mu.Lock()
	kind, known := c.kinds[schema.GroupKind{Group: gv.Group, Kind: ref.Kind}]
	c.mu.Unlock()
	if !known {
		// Perhaps its API is only away for now; deleting on a guess cannot be undone.
		return nil, fmt.Errorf("owner %s %s: the API has no such kind as %s", ref.Kind, ref.Name, ref.APIVersion)
	}
	if !kind.namespaced {
		namespace = ""
	} else if namespace == "" {
		return nil, nil //nolint:nilnil // an object outside namespaces cannot be owned by one inside
	}
	at := &vertex{resource: kind, namespace: namespace, name: ref.Name}
	live, err := c.client(at).Get(ctx, ref.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil //nolint:nilnil // absent is an answer
	}
	if err != nil {
		return nil, fmt.Errorf("read owner %s: %w", at, err)
	}
	if live.UID != ref.UID {
		return nil, nil //nolint:nilnil // another object of that name
	}
	return newVertex(kind, live), nil
}

// settle does what the verdict on the live object demands.
func (c *Collector) settle(ctx context.Context, v *vertex, live *metav1.PartialObjectMetadata) error {
	if v.deleting || len(v.owners) == 0 {
		return nil
	}
	result, err := c.judge(ctx, v.namespace, v.owners)
	if err != nil || result.healthy() {
		return err
	}
	if result.solid > 0 {
		return c.dropOwners(ctx, v, live, append(result.dangling, result.waiting...))
	}
	policy := metav1.DeletePropagationBackground
	switch {
	case v.orphan:
		policy = metav1.DeletePropagationOrphan
	case v.foreground, len(result.waiting) > 0 && len(c.graph.dependentsOf(v.uid)) > 0:
		// The owner waits for everything below it, so this object has to wait as well.
		policy = metav1.DeletePropagationForeground
	}
	c.Log.Info("delete object without owner", "object", v.String(), "policy", policy)
	err = c.client(v).Delete(ctx, v.name, metav1.DeleteOptions{PropagationPolicy: &policy,
		Preconditions: &metav1.Preconditions{UID: &v.uid, ResourceVersion: &live.ResourceVersion}})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete %s: %w", v, err)
	}
	return nil
}

// awaitDependents lets a foreground deletion finish when nothing blocks it any more.
func (c *Collector) awaitDependents(ctx context.Context, v *vertex) error {
	dependents := c.graph.dependentsOf(v.uid)
	blocked := slices.ContainsFunc(dependents, func(d *vertex) bool {
		return slices.ContainsFunc(d.owners, func(ref metav1.OwnerReference) bool { return ref.UID == v.uid && blocks(ref) })
	})
	if !blocked {
		return c.dropFinalizer(ctx, v, metav1.FinalizerDeleteDependents)
	}
	c.enqueueAll(dependents)
	return nil
}

// orphanDependents sets the dependents free, then lets the owner go.
func (c *Collector) orphanDependents(ctx context.Context, v *vertex) error {
	var errs error
	for _, dependent := range c.graph.dependentsOf(v.uid) {
		live, err := c.client(dependent).Get(ctx, dependent.name, metav1.GetOptions{})
		if err == nil && live.UID == dependent.uid {
			err = c.dropOwners(ctx, dependent, live, []types.UID{v.uid})
		}
		if err != nil && !apierrors.IsNotFound(err) {
			errs = errors.Join(errs, err)
		}
	}
	if errs != nil {
		return errs
	}
	return c.dropFinalizer(ctx, v, metav1.FinalizerOrphanDependents)
}

// dropOwners removes references to these owners from the live object.
func (c *Collector) dropOwners(ctx context.Context, v *vertex, live *metav1.PartialObjectMetadata, owners []types.UID) error {
	left := slices.DeleteFunc(slices.Clone(live.OwnerReferences), func(ref metav1.OwnerReference) bool { return slices.Contains(owners, ref.UID) })
	return c.patch(ctx, v, live, map[string]any{"ownerReferences": left})
}

func (c *Collector) dropFinalizer(ctx context.Context, v *vertex, finalizer string) error {
	live, err := c.client(v).Get(ctx, v.name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) || err == nil && live.UID != v.uid {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", v, err)
	}
	left := slices.DeleteFunc(slices.Clone(live.Finalizers), func(f string) bool { return f == finalizer })
	return c.patch(ctx, v, live, map[string]any{"finalizers": left})
}

// patch changes lists of the object's metadata, unless it changed since it was read.
func (c *Collector) patch(ctx context.Context, v *vertex, live *metav1.PartialObjectMetadata, lists map[string]any) error {
	lists["uid"], lists["resourceVersion"] = live.UID, live.ResourceVersion
	patch, err := json.Marshal(map[string]any{"metadata": lists})
	if err != nil {
		return fmt.Errorf("patch %s: %w", v, err)
	}
	_, err = c.client(v).Patch(ctx, v.name, types.MergePatchType, patch, metav1.PatchOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("patch %s: %w", v, err)
	}
	return nil
}
