package apiserver

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/kubernetes"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/registry/generic"
	"k8s.io/apiserver/pkg/server/healthz"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/cacher"
	"k8s.io/apiserver/pkg/storage/etcd3"
	"k8s.io/apiserver/pkg/storage/feature"
	"k8s.io/apiserver/pkg/storage/storagebackend"
	"k8s.io/apiserver/pkg/storage/storagebackend/factory"
	"k8s.io/apiserver/pkg/storage/value/encrypt/identity"
	"k8s.io/client-go/tools/cache"
)

// uncached are resources without a watch cache: events, as upstream, because they
// change more often than anyone reads them; the others because they hardly ever
// change and this server is all that watches them.
var uncached = []string{
	"events", "events.events.k8s.io",
	"controllerrevisions.apps", "ipaddresses.networking.k8s.io", "persistentvolumes",
	"podcertificaterequests.certificates.k8s.io", "podtemplates", "resourceslices.resource.k8s.io",
	"servicecidrs.networking.k8s.io", "volumeattachments.storage.k8s.io",
}

// inProcess makes storages that call the etcd of this process directly. Upstream
// would open a connection over TLS for every kind, with its buffers and a dozen
// goroutines at either end.
type inProcess struct {
	generic.RESTOptionsGetter
	// newClient is called once a kind: a client of its own keeps a kind's watches
	// apart from those of others, as a connection of its own does upstream.
	newClient func() *clientv3.Client
}

func (p inProcess) GetRESTOptions(resource schema.GroupResource, example runtime.Object) (generic.RESTOptions, error) {
	options, err := p.RESTOptionsGetter.GetRESTOptions(resource, example)
	if err != nil {
		return options, err
	}
	options.Decorator = p.cached
	for _, name := range uncached {
		if schema.ParseGroupResource(name) == resource {
			options.Decorator = p.raw
		}
	}
	return options, nil
}

// raw is a generic.StorageDecorator for a storage without a cache.
func (p inProcess) raw(config *storagebackend.ConfigForResource, resourcePrefix string, _ func(runtime.Object) (string, error),
	newFunc, newListFunc func() runtime.Object, _ storage.AttrFunc, _ storage.IndexerFuncs, _ *cache.Indexers,
) (storage.Interface, factory.DestroyFunc, error) {
	client := p.newClient()
	feature.DefaultFeatureSupportChecker.CheckClient(client.Ctx(), local{client}, storage.RequestWatchProgress)
	kube := &kubernetes.Client{Client: client}
	kube.Kubernetes = kube
	client.KV = etcd3.NewETCDLatencyTracker(client.KV)
	transformer := config.Transformer
	if transformer == nil {
		transformer = identity.NewEncryptCheckTransformer()
	}
	versioner := storage.APIObjectVersioner{}
	// No compactor: etcd compacts by itself.
	store, err := etcd3.New(kube, nil, config.Codec, newFunc, newListFunc, config.Prefix, resourcePrefix, config.GroupResource,
		transformer, config.LeaseManagerConfig, etcd3.NewDefaultDecoder(config.Codec, versioner), versioner)
	if err != nil {
		return nil, nil, errors.Join(err, client.Close())
	}
	return store, sync.OnceFunc(func() {
		store.Close()
		_ = client.Close() // in process, there is nothing that could fail
	}), nil
}

// cached is a generic.StorageDecorator: a storage below a watch cache.
func (p inProcess) cached(config *storagebackend.ConfigForResource, resourcePrefix string, keyFunc func(runtime.Object) (string, error),
	newFunc, newListFunc func() runtime.Object, attributes storage.AttrFunc, triggers storage.IndexerFuncs, indexers *cache.Indexers,
) (storage.Interface, factory.DestroyFunc, error) {
	store, destroy, err := p.raw(config, resourcePrefix, keyFunc, newFunc, newListFunc, attributes, triggers, indexers)
	if err != nil {
		return nil, nil, err
	}
	c, err := cacher.NewCacherFromConfig(cacher.Config{
		Storage: store, Versioner: storage.APIObjectVersioner{}, GroupResource: config.GroupResource,
		EventsHistoryWindow: config.EventsHistoryWindow, ResourcePrefix: resourcePrefix, KeyFunc: keyFunc,
		NewFunc: newFunc, NewListFunc: newListFunc, GetAttrsFunc: attributes,
		IndexerFuncs: triggers, Indexers: indexers, Codec: config.Codec,
	})
	if err != nil {
		destroy()
		return nil, nil, err
	}
	delegator := cacher.NewCacheDelegator(c, store)
	return delegator, sync.OnceFunc(func() {
		delegator.Stop()
		c.Stop()
		destroy()
	}), nil
}

// local gives the in-process server a name by which upstream remembers what it
// is able to do.
type local struct{ *clientv3.Client }

func (local) Endpoints() []string { return []string{"in-process"} }

// etcdHealth asks etcd for a key, as upstream's check does over a connection of
// its own.
func etcdHealth(client *clientv3.Client) healthz.HealthChecker {
	return healthz.NamedCheck("etcd", func(r *http.Request) error {
		ctx, cancel := context.WithTimeout(r.Context(), healthTimeout)
		defer cancel()
		_, err := client.Get(ctx, "/registry/health")
		return err
	})
}

// healthTimeout is upstream's.
const healthTimeout = 2 * time.Second
