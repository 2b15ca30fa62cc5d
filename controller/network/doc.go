// Package network holds the reconcilers that give the cluster network its content:
//
//	EndpointSlices  services + pods → EndpointSlice objects (discovery.k8s.io/v1)
//	Endpoints       EndpointSlice objects → legacy Endpoints objects of the same service
//	PodCIDRs        a share of the cluster's pod network for every Node
//
// Each has a constructor that registers with shared informers and a Run that works
// until its context ends. What they write is read by the overlay on every host.
package network
