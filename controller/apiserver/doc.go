// Package apiserver serves Kubernetes' API with Kubernetes' own code: the types,
// defaulting, validation, strategies, storages and printers of k8s.io/kubernetes
// on the machinery of k8s.io/apiserver, less what nothing here acts on, plus our
// kind Image.
//
//	apiserver.go  New and Run: options → configuration → one server, no delegates
//	options.go    the settings, in terms of upstream's options
//	resources.go  which kinds are served
//	storage.go    storages that call the etcd of this process directly
//	openapi.go    OpenAPI: the models, and how documents are built
//	documents.go  OpenAPI: documents are served from their compressed text
//	standins.go   informers of kinds that upstream watches and we do not serve
//	image.go      storage of images.lighter.dev
//	agents.go     subresources of images that an agent answers, through this server
//	routes.go     which agent that is, and what it is asked
//	bootstrap.go  objects that every cluster has: namespaces, gossip key, …
//	policy.go     who may do what: Kubernetes' roles and ours
//	servers.go    where further servers join, and who may
//	tenancy.go    what every namespace has: a service account and the CA
//
// There is no aggregator and no CRD server: see hack/decisions/0001.
package apiserver
