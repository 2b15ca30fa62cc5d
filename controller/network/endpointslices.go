package network

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	discoverylisters "k8s.io/client-go/listers/discovery/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/endpointslice"
	endpointsliceutil "k8s.io/endpointslice/util"
	"k8s.io/klog/v2"

	"lighter.dev/lighter/controller/reconcile"
)

const (
	// ManagedBy is the value of the label endpointslice.kubernetes.io/managed-by on
	// the slices that this reconciler owns. It is upstream's: tools look for it.
	ManagedBy = "endpointslice-controller.k8s.io"
	// maxEndpointsPerSlice is upstream's default. A change of one endpoint rewrites
	// its slice, so larger slices mean more bytes to every host.
	maxEndpointsPerSlice = 100
	workers              = 4
)

// errStale makes the queue come back to a service a moment later.
var errStale = errors.New("the cache does not show the last write of endpoint slices yet")

// Deps is what the reconcilers of this package work with. The informers are
// started by the caller after the constructors ran.
type Deps struct {
	Client    kubernetes.Interface
	Informers informers.SharedInformerFactory
	Recorder  record.EventRecorder
	Log       *slog.Logger
}

// EndpointSlices keeps the slices of every service that has a selector. How
// endpoints are spread over slices with the least number of writes is decided by
// the library k8s.io/endpointslice; this is the queue around it.
type EndpointSlices struct {
	services   corelisters.ServiceLister
	pods       corelisters.PodLister
	slices     discoverylisters.EndpointSliceLister
	tracker    *endpointsliceutil.EndpointSliceTracker
	reconciler *endpointslice.Reconciler
	runner     *reconcile.Runner
	log        klog.Logger
}

// NewEndpointSlices registers the reconciler with the informers.
func NewEndpointSlices(d Deps) (*EndpointSlices, error) {
	pods := d.Informers.Core().V1().Pods()
	services := d.Informers.Core().V1().Services()
	nodes := d.Informers.Core().V1().Nodes()
	endpointSlices := d.Informers.Discovery().V1().EndpointSlices()
	e := &EndpointSlices{
		services: services.Lister(), pods: pods.Lister(), slices: endpointSlices.Lister(),
		tracker: endpointsliceutil.NewEndpointSliceTracker(),
		// The library logs through klog; its decisions are in the objects it writes.
		log: klog.Logger{},
	}
	e.reconciler = endpointslice.NewReconciler(d.Client, nodes.Lister(), maxEndpointsPerSlice, e.tracker, nil,
		d.Recorder, ManagedBy, endpointslice.WithPreferSameTrafficDistributionEnabled(true))
	e.runner = reconcile.New("endpointslice", e.sync, d.Log)
	handlers := map[cache.SharedIndexInformer]cache.ResourceEventHandler{
		services.Informer():       e.runner.Handler(),
		pods.Informer():           e.podHandler(),
		endpointSlices.Informer(): e.sliceHandler(),
	}
	for informer, handler := range handlers {
		registration, err := informer.AddEventHandler(handler)
		if err != nil {
			return nil, fmt.Errorf("watch for endpoint slices: %w", err)
		}
		e.runner.WaitFor(registration.HasSynced)
	}
	e.runner.WaitFor(nodes.Informer().HasSynced)
	return e, nil
}

// Run reconciles until ctx ends.
func (e *EndpointSlices) Run(ctx context.Context) error { return e.runner.Run(ctx, workers) }

// sync makes the slices of one service right.
func (e *EndpointSlices) sync(_ context.Context, key string) error {
	namespace, name, err := cache.SplitMetaNamespaceKey(key)
	if err != nil {
		return reconcile.Final(err)
	}
	service, err := e.services.Services(namespace).Get(name)
	if apierrors.IsNotFound(err) {
		// The slices go with their owner, by garbage collection.
		e.reconciler.DeleteService(namespace, name)
		e.tracker.DeleteService(namespace, name)
		return nil
	}
	if err != nil {
		return fmt.Errorf("read service: %w", err)
	}
	if service.Spec.Type == corev1.ServiceTypeExternalName || service.Spec.Selector == nil {
		return nil // its endpoints, if any, are somebody else's
	}
	pods, err := e.pods.Pods(namespace).List(labels.SelectorFromSet(service.Spec.Selector))
	if err != nil {
		return fmt.Errorf("list pods: %w", err)
	}
	owned := labels.SelectorFromSet(labels.Set{discoveryv1.LabelServiceName: name, discoveryv1.LabelManagedBy: ManagedBy})
	existing, err := e.slices.EndpointSlices(namespace).List(owned)
	if err != nil {
		return fmt.Errorf("list endpoint slices: %w", err)
	}
	existing = slices.DeleteFunc(existing, func(s *discoveryv1.EndpointSlice) bool { return s.DeletionTimestamp != nil })
	if e.tracker.StaleSlices(service, existing) {
		// Our own last write has not come back yet; its event would not be missed,
		// but a retry costs less than thinking about it.
		return errStale
	}
	return e.reconciler.Reconcile(e.log, service, pods, existing, time.Time{})
}

// podHandler enqueues the services that a pod change can matter to. The library
// ignores changes (annotations, most of the status) that no endpoint shows.
func (e *EndpointSlices) podHandler() cache.ResourceEventHandler {
	changed := func(old, obj any) {
		key := endpointsliceutil.GetPodUpdateProjectionKey(old, obj)
		if key == nil {
			return
		}
		services, err := endpointsliceutil.GetServicesToUpdate(e.services, key)
		if err != nil {
			return // only an unreadable cache, which cannot be; the service's own event follows
		}
		for service := range services {
			e.runner.Enqueue(service)
		}
	}
	return cache.ResourceEventHandlerFuncs{
		AddFunc:    func(obj any) { changed(nil, obj) },
		UpdateFunc: changed,
		DeleteFunc: func(obj any) { changed(nil, obj) },
	}
}

// sliceHandler enqueues the service of a slice that somebody else changed.
func (e *EndpointSlices) sliceHandler() cache.ResourceEventHandler {
	enqueue := func(slice *discoveryv1.EndpointSlice) {
		if key, err := endpointslice.ServiceControllerKey(slice); err == nil {
			e.runner.Enqueue(key)
		}
	}
	return cache.ResourceEventHandlerFuncs{
		AddFunc: func(obj any) {
			if s, ok := obj.(*discoveryv1.EndpointSlice); ok && e.reconciler.ManagedByController(s) && e.tracker.ShouldSync(s) {
				enqueue(s)
			}
		},
		UpdateFunc: func(old, obj any) {
			before, ok1 := old.(*discoveryv1.EndpointSlice)
			s, ok2 := obj.(*discoveryv1.EndpointSlice)
			if !ok1 || !ok2 {
				return
			}
			// A slice that changed its service concerns both; the old one would not notice otherwise.
			if before.Labels[discoveryv1.LabelServiceName] != s.Labels[discoveryv1.LabelServiceName] {
				enqueue(before)
				enqueue(s)
				return
			}
			if e.reconciler.ManagedByChanged(before, s) || e.reconciler.ManagedByController(s) && e.tracker.ShouldSync(s) {
				enqueue(s)
			}
		},
		DeleteFunc: func(obj any) {
			s, ok := reconcile.Object[*discoveryv1.EndpointSlice](obj)
			if ok && e.reconciler.ManagedByController(s) && e.tracker.Has(s) && !e.tracker.HandleDeletion(s) {
				enqueue(s) // not our deletion
			}
		},
	}
}
