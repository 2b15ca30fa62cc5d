// Package service is the data plane of Kubernetes Services on one host: it turns
// Services and EndpointSlices into one nftables table, lighter-service, that
// rewrites (DNAT) a new connection to one of the service's endpoints.
//
// A walk through the files:
//
//	endpoints.go  which endpoints of a service port may get traffic (ready, terminating, local)
//	build.go      (services, slices, node) → the wanted Table; pure
//	chains.go     chains that some services need of their own (affinity, Local policy)
//	table.go      what a Table is, and its fixed skeleton of hooks
//	diff.go       (applied, wanted) → one nft transaction with only what changed; pure
//	conntrack.go  which UDP flows still point at endpoints that are gone
//	verify.go     whether somebody else changed our table
//	proxy.go      the loop: informer event → Build → diff → nft
//
// The path of a packet. Only the first packet of a connection walks the table;
// conntrack replays the decision for the rest. Every look-up is a hash:
//
//	services         ip daddr . proto . port → verdict map service-ips; for an
//	                 address of this host: proto . port → verdict map service-nodeports
//	pick-N           the connection's mark becomes a random number below N, then
//	                 (daddr . proto . port . mark) → endpoint in the map endpoints
//	masquerading     replaces the source of packets that carry MasqueradeMark, and of
//	                 pods that reach themselves through their own service (hairpin)
//	no-endpoints     refuses connections to services that nothing serves
//
// Chains pick-N exist once per number of endpoints, not once per service, so an
// endpoint change is a handful of map elements however large the cluster is.
//
// The table outlives the process: nothing is removed at start or stop, so traffic
// flows while the agent restarts or the control plane is away. The first
// synchronisation replaces the content in one atomic transaction.
package service
