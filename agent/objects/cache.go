// Package objects keeps the ConfigMaps and Secrets that this node's pods refer
// to, and nothing else: one watch per object, shared by all pods that name it
// and closed with the last of them.
//
// The node authorizer lets a node read only such objects, one by one, so a
// plain informer cannot be used. A watch each costs some 30 kB, and brings a
// change (or the birth of an object that a pod waits for) here at once.
package objects

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
)

// Cache holds the watched objects. Its methods are safe for concurrent use.
type Cache struct {
	ctx    context.Context
	client kubernetes.Interface
	log    *slog.Logger

	mu      sync.Mutex
	entries map[Ref]*entry
	users   map[types.UID]map[Ref]bool
	notify  map[types.UID]func()
}

// New makes a cache whose watches end with ctx.
func New(ctx context.Context, client kubernetes.Interface, log *slog.Logger) *Cache {
	return &Cache{
		ctx: ctx, client: client, log: log,
		entries: map[Ref]*entry{},
		users:   map[types.UID]map[Ref]bool{},
		notify:  map[types.UID]func(){},
	}
}

// Use declares what a pod refers to. Until Release, changed is called (on a
// goroutine of the cache, so it must be quick) when one of refs changes,
// appears or vanishes. A second call replaces the first.
func (c *Cache) Use(uid types.UID, refs []Ref, changed func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	wanted := make(map[Ref]bool, len(refs))
	for _, r := range refs {
		wanted[r] = true
		if !c.users[uid][r] {
			c.retain(r)
		}
	}
	for r := range c.users[uid] {
		if !wanted[r] {
			c.drop(r)
		}
	}
	c.users[uid], c.notify[uid] = wanted, changed
}

// Release ends what Use began.
func (c *Cache) Release(uid types.UID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for r := range c.users[uid] {
		c.drop(r)
	}
	delete(c.users, uid)
	delete(c.notify, uid)
}

func (c *Cache) retain(r Ref) {
	if e := c.entries[r]; e != nil {
		e.users++
		return
	}
	ctx, cancel := context.WithCancel(c.ctx)
	e := &entry{ref: r, users: 1, cancel: cancel, ready: make(chan struct{})}
	c.entries[r] = e
	go c.follow(ctx, e)
}

func (c *Cache) drop(r Ref) {
	e := c.entries[r]
	if e == nil {
		return
	}
	if e.users--; e.users == 0 {
		e.cancel()
		delete(c.entries, r)
	}
}

// changed tells every user of ref.
func (c *Cache) changed(r Ref) {
	c.mu.Lock()
	var calls []func()
	for uid, refs := range c.users {
		if refs[r] {
			calls = append(calls, c.notify[uid])
		}
	}
	c.mu.Unlock()
	for _, call := range calls {
		call()
	}
}

// ConfigMap returns a watched ConfigMap, or NotFound. It waits for the first
// answer of the API.
func (c *Cache) ConfigMap(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error) {
	obj, err := c.get(ctx, Ref{ConfigMap, namespace, name})
	if err != nil {
		return nil, err
	}
	return obj.(*corev1.ConfigMap), nil
}

// Secret returns a watched Secret, or NotFound. It waits for the first answer
// of the API.
func (c *Cache) Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error) {
	obj, err := c.get(ctx, Ref{Secret, namespace, name})
	if err != nil {
		return nil, err
	}
	return obj.(*corev1.Secret), nil
}

func (c *Cache) get(ctx context.Context, r Ref) (metav1.Object, error) {
	c.mu.Lock()
	e := c.entries[r]
	c.mu.Unlock()
	if e == nil {
		return nil, fmt.Errorf("%s %s/%s is not watched: no pod declared it", r.Kind, r.Namespace, r.Name)
	}
	ctx, cancel := context.WithTimeout(ctx, firstAnswer)
	defer cancel()
	select {
	case <-e.ready:
	case <-ctx.Done():
		if err := e.giveUp(); err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("read %s %s/%s: no answer from the API server: %w", r.Kind, r.Namespace, r.Name, ctx.Err())
	}
	return e.value()
}

// firstAnswer bounds how long a reader waits for an object nobody read before.
const firstAnswer = 5 * time.Second

// notFound is the error the API itself would give.
func notFound(r Ref) error {
	resource := "configmaps"
	if r.Kind == Secret {
		resource = "secrets"
	}
	return apierrors.NewNotFound(corev1.Resource(resource), r.Name)
}
