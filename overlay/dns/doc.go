// Package dns is the cluster's DNS server, one on every host, as the specification
// "Kubernetes DNS-Based Service Discovery" 1.1.0 describes it. Pods ask the server of
// the host they run on, at its bridge address.
//
//	server.go   sockets, start and stop
//	handler.go  one query: which part answers it, EDNS0 (RFC 6891), truncation, negative answers
//	zone.go     names below the cluster domain
//	service.go  the records of one service
//	reverse.go  PTR records of service and endpoint addresses
//	forward.go  everything else, at the host's resolvers
//	cache.go    what those resolvers answered
//	index.go    informer indexes; no query scans a list
//
// Answers come from informer caches, so they keep coming while the control plane is
// away. A name that exists without a record of the asked type gets NODATA, others
// NXDOMAIN, both with the SOA record (RFC 2308), so that resolvers walk their search
// path without delay.
package dns
