package reconcile

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/informers/apps"
	"k8s.io/client-go/informers/autoscaling"
	"k8s.io/client-go/informers/batch"
	"k8s.io/client-go/informers/certificates"
	"k8s.io/client-go/informers/coordination"
	"k8s.io/client-go/informers/core"
	"k8s.io/client-go/informers/discovery"
	"k8s.io/client-go/informers/events"
	"k8s.io/client-go/informers/internalinterfaces"
	"k8s.io/client-go/informers/networking"
	"k8s.io/client-go/informers/policy"
	"k8s.io/client-go/informers/rbac"
	"k8s.io/client-go/informers/scheduling"
	"k8s.io/client-go/informers/storage"
	"k8s.io/client-go/tools/cache"

	lighterinformers "lighter.dev/lighter/api/client/informers"
	"lighter.dev/lighter/api/client/informers/api"
	lighterinternal "lighter.dev/lighter/api/client/informers/internalinterfaces"
)

// Scope lends the informers of a process to reconcilers that live for a shorter
// time: caches stay warm from one scope to the next, but Close takes every
// handler away that was added within. It has the kinds of groups that
// reconcilers use; ForResource is not scoped.
type Scope struct {
	informers.SharedInformerFactory
	// Lighter is the same for our own kinds.
	Lighter lighterinformers.SharedInformerFactory

	mu      sync.Mutex
	removes []func() error
}

// NewScope borrows from factories.
func NewScope(factory informers.SharedInformerFactory, lighter lighterinformers.SharedInformerFactory) *Scope {
	s := &Scope{SharedInformerFactory: factory}
	s.Lighter = &lighterScope{lighter, s}
	return s
}

// Close removes the handlers. Reconcilers that are still running get no events
// any more.
func (s *Scope) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, remove := range s.removes {
		_ = remove() // fails on foreign handlers only
	}
	s.removes = nil
}

// InformerFor implements informers.SharedInformerFactory.
func (s *Scope) InformerFor(obj runtime.Object, newFunc internalinterfaces.NewInformerFunc) cache.SharedIndexInformer {
	return scoped{s.SharedInformerFactory.InformerFor(obj, newFunc), s}
}

// Groups ask the factory that they are made with for informers: here the scope.

// Apps implements informers.SharedInformerFactory.
func (s *Scope) Apps() apps.Interface { return apps.New(s, "", nil) }

// Autoscaling implements informers.SharedInformerFactory.
func (s *Scope) Autoscaling() autoscaling.Interface { return autoscaling.New(s, "", nil) }

// Batch implements informers.SharedInformerFactory.
func (s *Scope) Batch() batch.Interface { return batch.New(s, "", nil) }

// Certificates implements informers.SharedInformerFactory.
func (s *Scope) Certificates() certificates.Interface { return certificates.New(s, "", nil) }

// Coordination implements informers.SharedInformerFactory.
func (s *Scope) Coordination() coordination.Interface { return coordination.New(s, "", nil) }

// Core implements informers.SharedInformerFactory.
func (s *Scope) Core() core.Interface { return core.New(s, "", nil) }

// Discovery implements informers.SharedInformerFactory.
func (s *Scope) Discovery() discovery.Interface { return discovery.New(s, "", nil) }

// Events implements informers.SharedInformerFactory.
func (s *Scope) Events() events.Interface { return events.New(s, "", nil) }

// Networking implements informers.SharedInformerFactory.
func (s *Scope) Networking() networking.Interface { return networking.New(s, "", nil) }

// Policy implements informers.SharedInformerFactory.
func (s *Scope) Policy() policy.Interface { return policy.New(s, "", nil) }

// Rbac implements informers.SharedInformerFactory.
func (s *Scope) Rbac() rbac.Interface { return rbac.New(s, "", nil) }

// Scheduling implements informers.SharedInformerFactory.
func (s *Scope) Scheduling() scheduling.Interface { return scheduling.New(s, "", nil) }

// Storage implements informers.SharedInformerFactory.
func (s *Scope) Storage() storage.Interface { return storage.New(s, "", nil) }

// lighterScope is the part of a scope for our own kinds.
type lighterScope struct {
	lighterinformers.SharedInformerFactory
	scope *Scope
}

func (l *lighterScope) InformerFor(obj runtime.Object, newFunc lighterinternal.NewInformerFunc) cache.SharedIndexInformer {
	return scoped{l.SharedInformerFactory.InformerFor(obj, newFunc), l.scope}
}

// Lighter has our own kinds.
func (l *lighterScope) Lighter() api.Interface { return api.New(l, "", nil) }

// scoped is a shared informer that tells the scope about its handlers.
type scoped struct {
	cache.SharedIndexInformer
	scope *Scope
}

func (i scoped) AddEventHandler(handler cache.ResourceEventHandler) (cache.ResourceEventHandlerRegistration, error) {
	return i.AddEventHandlerWithOptions(handler, cache.HandlerOptions{})
}

func (i scoped) AddEventHandlerWithResyncPeriod(handler cache.ResourceEventHandler, resync time.Duration) (cache.ResourceEventHandlerRegistration, error) {
	return i.AddEventHandlerWithOptions(handler, cache.HandlerOptions{ResyncPeriod: &resync})
}

func (i scoped) AddEventHandlerWithOptions(handler cache.ResourceEventHandler, options cache.HandlerOptions) (cache.ResourceEventHandlerRegistration, error) {
	registration, err := i.SharedIndexInformer.AddEventHandlerWithOptions(handler, options)
	if err == nil {
		i.scope.mu.Lock()
		defer i.scope.mu.Unlock()
		i.scope.removes = append(i.scope.removes, func() error { return i.RemoveEventHandler(registration) })
	}
	return registration, err
}

// AddIndexers adds those that an earlier scope has not added.
func (i scoped) AddIndexers(indexers cache.Indexers) error {
	have, missing := i.GetIndexer().GetIndexers(), cache.Indexers{}
	for name, index := range indexers {
		if _, there := have[name]; !there {
			missing[name] = index
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return i.SharedIndexInformer.AddIndexers(missing)
}
