// Package owner finds and claims the children of an object: the pods of a
// ReplicaSet, the ReplicaSets of a Deployment. A child belongs to the one
// parent that its controller owner reference names by UID; a child without
// such a reference is an orphan, which a parent whose selector matches adopts.
package owner

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
)

// index maps the UID of the controlling owner to its children, and
// "orphans/<namespace>" to the children that have none.
const index = "lighter.dev/controller-uid"

// Index prepares an informer for Candidates. Calling it again for the same
// informer does nothing.
func Index(informer cache.SharedIndexInformer) error {
	if _, done := informer.GetIndexer().GetIndexers()[index]; done {
		return nil
	}
	return informer.AddIndexers(cache.Indexers{index: func(obj any) ([]string, error) {
		child, ok := obj.(metav1.Object)
		if !ok {
			return nil, nil
		}
		if ref := metav1.GetControllerOfNoCopy(child); ref != nil {
			return []string{string(ref.UID)}, nil
		}
		return []string{orphans(child.GetNamespace())}, nil
	}})
}

func orphans(namespace string) string { return "orphans/" + namespace }

// Candidates returns the children of parent and the orphans of its namespace,
// from the cache. The objects are shared: do not change them.
func Candidates[T metav1.Object](indexer cache.Indexer, parent metav1.Object) ([]T, error) {
	children, err := lookup[T](indexer, string(parent.GetUID()))
	if err != nil {
		return nil, err
	}
	lost, err := lookup[T](indexer, orphans(parent.GetNamespace()))
	return append(children, lost...), err
}

// Children returns the objects whose controlling owner has this UID.
func Children[T metav1.Object](indexer cache.Indexer, uid types.UID) ([]T, error) {
	return lookup[T](indexer, string(uid))
}

func lookup[T metav1.Object](indexer cache.Indexer, value string) ([]T, error) {
	found, err := indexer.ByIndex(index, value)
	if err != nil {
		return nil, fmt.Errorf("children of %s: %w", value, err)
	}
	children := make([]T, 0, len(found))
	for _, obj := range found {
		if child, ok := obj.(T); ok {
			children = append(children, child)
		}
	}
	return children, nil
}

// Claim is the decision about the candidates of one parent.
type Claim[T metav1.Object] struct {
	Owned   []T // belong to the parent and match its selector
	Adopt   []T // orphans that match: to be owned
	Release []T // belong to the parent but match no more: to be orphaned
}

// Decide sorts candidates by what should happen to them. A parent that is being
// deleted neither adopts nor releases, and nobody adopts a child that is being
// deleted.
func Decide[T metav1.Object](parent metav1.Object, selector labels.Selector, candidates []T) Claim[T] {
	var claim Claim[T]
	parentLives := parent.GetDeletionTimestamp() == nil
	for _, child := range candidates {
		matches := selector.Matches(labels.Set(child.GetLabels()))
		ref := metav1.GetControllerOfNoCopy(child)
		childLives := child.GetDeletionTimestamp() == nil
		switch {
		case ref != nil && ref.UID != parent.GetUID():
			// Another parent's child.
		case ref != nil && matches:
			claim.Owned = append(claim.Owned, child)
		case ref != nil && parentLives:
			claim.Release = append(claim.Release, child)
		case ref == nil && matches && parentLives && childLives:
			claim.Adopt = append(claim.Adopt, child)
		}
	}
	return claim
}

// Access is how Carry reaches the API.
type Access[T metav1.Object] struct {
	// Kind is the parent's kind, for the owner reference.
	Kind schema.GroupVersionKind
	// Fresh reads the parent past the cache.
	Fresh func(ctx context.Context) (metav1.Object, error)
	// Patch applies a strategic merge patch to a child.
	Patch func(ctx context.Context, child T, patch []byte) error
}

// Carry carries a claim out and returns the children that the parent owns now.
// Before it adopts it asks the API server whether the parent still lives: a
// stale cache must not give children to an object that is being deleted.
func Carry[T metav1.Object](ctx context.Context, parent metav1.Object, claim Claim[T], access Access[T]) ([]T, error) {
	owned := claim.Owned
	var errs []error
	if len(claim.Adopt) > 0 {
		fresh, err := access.Fresh(ctx)
		switch {
		case err != nil:
			return owned, fmt.Errorf("check the parent before adopting: %w", err)
		case fresh.GetUID() != parent.GetUID():
			return owned, fmt.Errorf("%s/%s was replaced by another object of that name", parent.GetNamespace(), parent.GetName())
		case fresh.GetDeletionTimestamp() != nil:
			claim.Adopt = nil
		}
	}
	for _, child := range claim.Adopt {
		err := access.Patch(ctx, child, adoptPatch(parent, access.Kind, child))
		switch {
		case err == nil:
			owned = append(owned, child)
		case !apierrors.IsNotFound(err):
			errs = append(errs, fmt.Errorf("adopt %s: %w", child.GetName(), err))
		}
	}
	for _, child := range claim.Release {
		err := access.Patch(ctx, child, releasePatch(parent, child))
		// NotFound: it is gone. Invalid: the reference or the UID is not what
		// the cache said, so somebody else has released or replaced it.
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsInvalid(err) {
			errs = append(errs, fmt.Errorf("release %s: %w", child.GetName(), err))
		}
	}
	return owned, errors.Join(errs...)
}

// adoptPatch carries the child's UID, which the API server refuses to change:
// the patch fails if the name now belongs to another object.
func adoptPatch(parent metav1.Object, kind schema.GroupVersionKind, child metav1.Object) []byte {
	return metadataPatch(child.GetUID(), metav1.NewControllerRef(parent, kind))
}

func releasePatch(parent, child metav1.Object) []byte {
	return metadataPatch(child.GetUID(), map[string]any{"$patch": "delete", "uid": parent.GetUID()})
}

func metadataPatch(uid types.UID, reference any) []byte {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"uid":             uid,
		"ownerReferences": []any{reference},
	}})
	if err != nil {
		return nil // strings and booleans always marshal
	}
	return patch
}
