// Package servers lets a cluster have several servers, any of which can do all
// the work of the control plane.
//
//	servers.go  what travels between servers
//	handler.go  on a server: others join, are listed and are taken out
//	health.go   who answers
//	join.go     on a host that is to become a server
//	adopt.go    what its folder says about earlier tries
//	roles.go    a reconciler: which Nodes are servers
//
// A host with a token for servers asks for the cluster's keys and for a place
// among the members of etcd. It starts as one that has no vote; its first act is
// to ask for one (package store). Whoever has such a token can become the
// control plane: agents' tokens do not do.
package servers
