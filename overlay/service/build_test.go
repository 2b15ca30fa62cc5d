package service

import (
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/knftables"
)

const thisNode = "host-1"

var podNet = []netip.Prefix{netip.MustParsePrefix("10.42.0.0/16")}

// svc makes a ClusterIP service "default/name" with TCP port 80, named "http".
func svc(name, clusterIP string, mutate ...func(*corev1.Service)) *corev1.Service {
	s := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeClusterIP, ClusterIP: clusterIP, ClusterIPs: []string{clusterIP},
			Ports: []corev1.ServicePort{{Name: "http", Protocol: corev1.ProtocolTCP, Port: 80}},
		},
	}
	for _, m := range mutate {
		m(s)
	}
	return s
}

// slice makes the endpoint slice of service name, port 8080, with these endpoints.
func slice(name string, endpoints ...discoveryv1.Endpoint) *discoveryv1.EndpointSlice {
	return &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name + "-1",
			Labels: map[string]string{discoveryv1.LabelServiceName: name}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: ptr.To("http"), Protocol: ptr.To(corev1.ProtocolTCP), Port: ptr.To[int32](8080)}},
		Endpoints:   endpoints,
	}
}

func ep(addr string, on string) discoveryv1.Endpoint {
	return discoveryv1.Endpoint{Addresses: []string{addr}, NodeName: &on,
		Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(true), Serving: ptr.To(true), Terminating: ptr.To(false)}}
}

func epTerminating(addr string, on string) discoveryv1.Endpoint {
	e := ep(addr, on)
	e.Conditions = discoveryv1.EndpointConditions{Ready: ptr.To(false), Serving: ptr.To(true), Terminating: ptr.To(true)}
	return e
}

func epNotReady(addr string, on string) discoveryv1.Endpoint {
	e := ep(addr, on)
	e.Conditions = discoveryv1.EndpointConditions{Ready: ptr.To(false), Serving: ptr.To(false), Terminating: ptr.To(false)}
	return e
}

func build(services []*corev1.Service, slices []*discoveryv1.EndpointSlice) *Table {
	return Build(Input{Family: knftables.IPv4Family, Node: thisNode, PodCIDRs: podNet, Services: services, Slices: slices})
}

// cluster makes n services with m endpoints each.
func cluster(n, m int) ([]*corev1.Service, []*discoveryv1.EndpointSlice) {
	var services []*corev1.Service
	var all []*discoveryv1.EndpointSlice
	for i := range n {
		name := fmt.Sprintf("svc-%d", i)
		services = append(services, svc(name, fmt.Sprintf("10.43.%d.%d", i/250, i%250+1)))
		var eps []discoveryv1.Endpoint
		for j := range m {
			eps = append(eps, ep(fmt.Sprintf("10.42.%d.%d", i/50, (i%50)*5+j+1), thisNode))
		}
		all = append(all, slice(name, eps...))
	}
	return services, all
}
