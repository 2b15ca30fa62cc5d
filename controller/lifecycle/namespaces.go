package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/metadata"

	"lighter.dev/lighter/controller/reconcile"
)

// namespaceRecheck is how soon a namespace with content left is looked at again: its
// pods end on their hosts, which is no event of the namespace.
const namespaceRecheck = 500 * time.Millisecond

// Namespaces empties namespaces that are being deleted and then finalizes them. What
// is in the way is told in the namespace's conditions.
type Namespaces struct {
	Deps
	metadata  metadata.Interface
	discovery Discovery
	lister    corelisters.NamespaceLister
	runner    *reconcile.Runner
}

// NewNamespaces registers the reconciler.
func NewNamespaces(d Deps, objects metadata.Interface, kinds Discovery) (*Namespaces, error) {
	informer := d.Informers.Core().V1().Namespaces()
	n := &Namespaces{Deps: d, metadata: objects, discovery: kinds, lister: informer.Lister()}
	n.runner = reconcile.New("namespace", n.sync, d.Log)
	handle, err := informer.Informer().AddEventHandler(n.runner.Handler())
	if err != nil {
		return nil, fmt.Errorf("watch namespaces: %w", err)
	}
	n.runner.WaitFor(handle.HasSynced)
	return n, nil
}

// Run empties namespaces until ctx ends.
func (n *Namespaces) Run(ctx context.Context) error { return n.runner.Run(ctx, 4) }

func (n *Namespaces) sync(ctx context.Context, name string) error {
	namespace, err := n.lister.Get(name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read namespace: %w", err)
	}
	if namespace.DeletionTimestamp == nil || len(namespace.Spec.Finalizers) == 0 {
		return nil
	}
	left := n.empty(ctx, name)
	if err := n.writeConditions(ctx, namespace, left); err != nil {
		return err
	}
	if left.err() != nil {
		return left.err()
	}
	if len(left.objects) > 0 {
		n.runner.EnqueueAfter(name, namespaceRecheck)
		return nil
	}
	return n.finalize(ctx, name)
}

// leftover is what stands between a namespace and its end.
type leftover struct {
	discovery  error          // some kinds could not even be listed
	content    error          // some objects could not be deleted
	objects    map[string]int // resource → how many remain
	finalizers map[string]int // finalizer → how many objects wait for it
}

func (l leftover) err() error { return errors.Join(l.discovery, l.content) }

// empty deletes everything in the namespace that can be deleted and counts what remains.
func (n *Namespaces) empty(ctx context.Context, namespace string) leftover {
	left := leftover{objects: map[string]int{}, finalizers: map[string]int{}}
	kinds, err := discoverResources(n.discovery)
	left.discovery = err
	// Pods first, and nothing else before they ended: what they use while they shut
	// down (secrets, network policies) must outlive them (KEP-5080).
	if i := slices.IndexFunc(kinds, isPods); i > 0 {
		kinds[0], kinds[i] = kinds[i], kinds[0]
	}
	for _, kind := range kinds {
		if !kind.namespaced || !kind.can("list", "delete") || strings.Contains(kind.Resource, "/") {
			continue
		}
		remaining, err := n.emptyKind(ctx, kind, namespace)
		if err != nil {
			left.content = errors.Join(left.content, fmt.Errorf("delete %s in namespace %s: %w", kind.GroupResource(), namespace, err))
		}
		for i := range remaining {
			left.objects[kind.GroupResource().String()]++
			for _, f := range remaining[i].Finalizers {
				left.finalizers[f]++
			}
		}
		if isPods(kind) && (len(remaining) > 0 || err != nil) {
			return left
		}
	}
	return left
}

func isPods(r resource) bool { return r.Group == "" && r.Resource == "pods" }

// emptyKind deletes the objects of one kind and returns those that are still there.
func (n *Namespaces) emptyKind(ctx context.Context, kind resource, namespace string) ([]metav1.PartialObjectMetadata, error) {
	client := n.metadata.Resource(kind.GroupVersionResource).Namespace(namespace)
	// Listing first makes the usual case, nothing of this kind, a read of the watch
	// cache instead of a write.
	list, err := client.List(ctx, metav1.ListOptions{})
	if apierrors.IsNotFound(err) || apierrors.IsMethodNotSupported(err) {
		return nil, nil
	}
	if err != nil || len(list.Items) == 0 {
		return nil, err
	}
	background := metav1.DeletePropagationBackground
	var errs error
	for i := range list.Items {
		object := &list.Items[i]
		if object.DeletionTimestamp != nil {
			continue
		}
		err := client.Delete(ctx, object.Name, metav1.DeleteOptions{
			PropagationPolicy: &background, Preconditions: &metav1.Preconditions{UID: &object.UID}})
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			errs = errors.Join(errs, fmt.Errorf("%s: %w", object.Name, err))
		}
	}
	list, err = client.List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, errors.Join(errs, err)
	}
	return list.Items, errs
}

// writeConditions tells in the namespace's status what is in the way. Like kubectl's
// wait, people read these conditions when a namespace hangs.
func (n *Namespaces) writeConditions(ctx context.Context, namespace *corev1.Namespace, left leftover) error {
	wanted := []corev1.NamespaceCondition{
		condition(corev1.NamespaceDeletionDiscoveryFailure, left.discovery != nil, "DiscoveryFailed", "ResourcesDiscovered",
			errorText(left.discovery), "All resources successfully discovered"),
		condition(corev1.NamespaceDeletionContentFailure, left.content != nil, "ContentDeletionFailed", "ContentDeleted",
			errorText(left.content), "All content successfully deleted, may be waiting on finalization"),
		condition(corev1.NamespaceContentRemaining, len(left.objects) > 0, "SomeResourcesRemain", "ContentRemoved",
			"Some resources are remaining: "+counts(left.objects, "%s has %d resource instances"), "All content successfully removed"),
		condition(corev1.NamespaceFinalizersRemaining, len(left.finalizers) > 0, "SomeFinalizersRemain", "ContentHasNoFinalizers",
			"Some content in the namespace has finalizers remaining: "+counts(left.finalizers, "%s in %d resource instances"), "All content-preserving finalizers finished"),
	}
	updated := namespace.DeepCopy()
	updated.Status.Phase = corev1.NamespaceTerminating
	changed := namespace.Status.Phase != corev1.NamespaceTerminating
	for _, c := range wanted {
		i := slices.IndexFunc(updated.Status.Conditions, func(o corev1.NamespaceCondition) bool { return o.Type == c.Type })
		switch {
		case i < 0 && c.Status == corev1.ConditionTrue:
			updated.Status.Conditions = append(updated.Status.Conditions, c)
		case i >= 0 && (updated.Status.Conditions[i].Status != c.Status || updated.Status.Conditions[i].Message != c.Message):
			updated.Status.Conditions[i] = c
		default:
			continue
		}
		changed = true
	}
	if !changed {
		return nil
	}
	_, err := n.Client.CoreV1().Namespaces().UpdateStatus(ctx, updated, metav1.UpdateOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("write conditions of namespace %s: %w", namespace.Name, err)
	}
	return nil
}

func condition(kind corev1.NamespaceConditionType, bad bool, badReason, goodReason, badMessage, goodMessage string) corev1.NamespaceCondition {
	c := corev1.NamespaceCondition{Type: kind, Status: corev1.ConditionFalse, Reason: goodReason, Message: goodMessage, LastTransitionTime: metav1.Now()}
	if bad {
		c.Status, c.Reason, c.Message = corev1.ConditionTrue, badReason, badMessage
	}
	return c
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func counts(m map[string]int, format string) string {
	var parts []string
	for _, key := range slices.Sorted(maps.Keys(m)) {
		parts = append(parts, fmt.Sprintf(format, key, m[key]))
	}
	return strings.Join(parts, ", ")
}

// finalize takes our finalizer off; the API then removes the namespace.
func (n *Namespaces) finalize(ctx context.Context, name string) error {
	current, err := n.Client.CoreV1().Namespaces().Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read namespace %s: %w", name, err)
	}
	if current.DeletionTimestamp == nil {
		return nil // deleted and created anew meanwhile
	}
	current.Spec.Finalizers = slices.DeleteFunc(current.Spec.Finalizers, func(f corev1.FinalizerName) bool { return f == corev1.FinalizerKubernetes })
	_, err = n.Client.CoreV1().Namespaces().Finalize(ctx, current, metav1.UpdateOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("finalize namespace %s: %w", name, err)
	}
	n.Log.Info("namespace is empty and gone", "namespace", name)
	return nil
}
