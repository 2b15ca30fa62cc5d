package network

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	discoverylisters "k8s.io/client-go/listers/discovery/v1"
	"k8s.io/client-go/tools/cache"

	"lighter.dev/lighter/controller/reconcile"
)

// Label and value that mark the Endpoints objects that this reconciler owns, as upstream's does.
const (
	labelManagedBy     = "endpoints.kubernetes.io/managed-by"
	endpointsManagedBy = "endpoint-controller"
)

// maxAddresses is where an Endpoints object is cut off, as upstream does.
const maxAddresses = 1000

// Endpoints writes the legacy Endpoints object of every service with a selector, for
// clients that do not know EndpointSlices. It translates our slices, so the two
// never disagree for long. It may be left out: nothing of ours reads Endpoints.
type Endpoints struct {
	client    kubernetes.Interface
	services  corelisters.ServiceLister
	slices    discoverylisters.EndpointSliceLister
	endpoints corelisters.EndpointsLister
	runner    *reconcile.Runner
}

// NewEndpoints registers the reconciler with the informers.
func NewEndpoints(d Deps) (*Endpoints, error) {
	services := d.Informers.Core().V1().Services()
	endpointSlices := d.Informers.Discovery().V1().EndpointSlices()
	endpoints := d.Informers.Core().V1().Endpoints()
	e := &Endpoints{client: d.Client, services: services.Lister(), slices: endpointSlices.Lister(), endpoints: endpoints.Lister()}
	e.runner = reconcile.New("endpoints", e.sync, d.Log)
	ofSlice := func(obj any) {
		if slice, ok := reconcile.Object[*discoveryv1.EndpointSlice](obj); ok && slice.Labels[discoveryv1.LabelManagedBy] == ManagedBy {
			e.runner.Enqueue(slice.Namespace + "/" + slice.Labels[discoveryv1.LabelServiceName])
		}
	}
	for informer, handler := range map[cache.SharedIndexInformer]cache.ResourceEventHandler{
		services.Informer():  e.runner.Handler(),
		endpoints.Informer(): e.runner.Handler(),
		endpointSlices.Informer(): cache.ResourceEventHandlerFuncs{
			AddFunc: ofSlice, UpdateFunc: func(_, obj any) { ofSlice(obj) }, DeleteFunc: ofSlice,
		},
	} {
		registration, err := informer.AddEventHandler(handler)
		if err != nil {
			return nil, fmt.Errorf("watch for endpoints: %w", err)
		}
		e.runner.WaitFor(registration.HasSynced)
	}
	return e, nil
}

// Run reconciles until ctx ends.
func (e *Endpoints) Run(ctx context.Context) error { return e.runner.Run(ctx, workers) }

func (e *Endpoints) sync(ctx context.Context, key string) error {
	namespace, name, err := cache.SplitMetaNamespaceKey(key)
	if err != nil {
		return reconcile.Final(err)
	}
	service, err := e.services.Services(namespace).Get(name)
	gone := apierrors.IsNotFound(err)
	if err != nil && !gone {
		return fmt.Errorf("read service: %w", err)
	}
	current, err := e.endpoints.Endpoints(namespace).Get(name)
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("read endpoints: %w", err)
	}
	exists := err == nil
	if gone {
		if exists && current.Labels[labelManagedBy] == endpointsManagedBy {
			err := e.client.CoreV1().Endpoints(namespace).Delete(ctx, name, metav1.DeleteOptions{})
			if err != nil && !apierrors.IsNotFound(err) {
				return fmt.Errorf("delete endpoints: %w", err)
			}
		}
		return nil
	}
	if service.Spec.Selector == nil || service.Spec.Type == corev1.ServiceTypeExternalName {
		return nil
	}
	all, err := e.slices.EndpointSlices(namespace).List(labels.SelectorFromSet(labels.Set{
		discoveryv1.LabelServiceName: name, discoveryv1.LabelManagedBy: ManagedBy}))
	if err != nil {
		return fmt.Errorf("list endpoint slices: %w", err)
	}
	return e.write(ctx, service, current, exists, all)
}

// write creates or updates the object if it is not right.
func (e *Endpoints) write(ctx context.Context, service *corev1.Service, current *corev1.Endpoints, exists bool, all []*discoveryv1.EndpointSlice) error {
	wanted := &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Namespace: service.Namespace, Name: service.Name}}
	if exists {
		wanted = current.DeepCopy()
	}
	wanted.Labels = maps.Clone(service.Labels)
	if wanted.Labels == nil {
		wanted.Labels = map[string]string{}
	}
	wanted.Labels[labelManagedBy] = endpointsManagedBy
	if service.Spec.ClusterIP == corev1.ClusterIPNone {
		wanted.Labels[corev1.IsHeadlessService] = ""
	}
	var cut bool
	wanted.Subsets, cut = subsets(all)
	if cut {
		metav1.SetMetaDataAnnotation(&wanted.ObjectMeta, corev1.EndpointsOverCapacity, "truncated")
	} else {
		delete(wanted.Annotations, corev1.EndpointsOverCapacity)
	}
	if !exists {
		_, err := e.client.CoreV1().Endpoints(service.Namespace).Create(ctx, wanted, metav1.CreateOptions{})
		return wrap("create endpoints", err)
	}
	if equality.Semantic.DeepEqual(wanted.Subsets, current.Subsets) && maps.Equal(wanted.Labels, current.Labels) &&
		maps.Equal(wanted.Annotations, current.Annotations) {
		return nil
	}
	_, err := e.client.CoreV1().Endpoints(service.Namespace).Update(ctx, wanted, metav1.UpdateOptions{})
	return wrap("update endpoints", err)
}

func wrap(doing string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// subsets turns slices into subsets, one for each set of ports. cut tells that
// there were more addresses than an Endpoints object may have.
func subsets(all []*discoveryv1.EndpointSlice) (result []corev1.EndpointSubset, cut bool) {
	all = slices.SortedFunc(slices.Values(all), func(a, b *discoveryv1.EndpointSlice) int { return cmp.Compare(a.Name, b.Name) })
	byPorts := map[string]int{}
	count := 0
	for _, slice := range all {
		if slice.AddressType == discoveryv1.AddressTypeFQDN || len(slice.Endpoints) == 0 {
			continue
		}
		ports := legacyPorts(slice.Ports)
		key := fmt.Sprint(ports)
		index, ok := byPorts[key]
		if !ok {
			index = len(result)
			byPorts[key] = index
			result = append(result, corev1.EndpointSubset{Ports: ports})
		}
		for i := range slice.Endpoints {
			if count++; count > maxAddresses {
				return sortSubsets(result), true
			}
			addTo(&result[index], &slice.Endpoints[i])
		}
	}
	return sortSubsets(result), false
}

func addTo(subset *corev1.EndpointSubset, ep *discoveryv1.Endpoint) {
	if len(ep.Addresses) == 0 || ep.Conditions.Terminating != nil && *ep.Conditions.Terminating {
		return // Endpoints know no terminating state
	}
	address := corev1.EndpointAddress{IP: ep.Addresses[0], NodeName: ep.NodeName, TargetRef: ep.TargetRef}
	if ep.Hostname != nil {
		address.Hostname = *ep.Hostname
	}
	if ep.Conditions.Ready == nil || *ep.Conditions.Ready {
		subset.Addresses = append(subset.Addresses, address)
	} else {
		subset.NotReadyAddresses = append(subset.NotReadyAddresses, address)
	}
}

// sortSubsets drops empty subsets and orders addresses, so that a moved endpoint is no change.
func sortSubsets(all []corev1.EndpointSubset) []corev1.EndpointSubset {
	byIP := func(a, b corev1.EndpointAddress) int { return cmp.Compare(a.IP, b.IP) }
	for i := range all {
		slices.SortFunc(all[i].Addresses, byIP)
		slices.SortFunc(all[i].NotReadyAddresses, byIP)
	}
	return slices.DeleteFunc(all, func(s corev1.EndpointSubset) bool { return len(s.Addresses)+len(s.NotReadyAddresses) == 0 })
}

func legacyPorts(ports []discoveryv1.EndpointPort) []corev1.EndpointPort {
	var all []corev1.EndpointPort
	for _, port := range ports {
		legacy := corev1.EndpointPort{Protocol: corev1.ProtocolTCP, AppProtocol: port.AppProtocol}
		if port.Name != nil {
			legacy.Name = *port.Name
		}
		if port.Port != nil {
			legacy.Port = *port.Port
		}
		if port.Protocol != nil {
			legacy.Protocol = *port.Protocol
		}
		all = append(all, legacy)
	}
	return all
}
