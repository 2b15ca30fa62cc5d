package objects

import (
	"context"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/watch"
)

// entry is one object under watch.
type entry struct {
	ref    Ref
	users  int // guarded by Cache.mu
	cancel context.CancelFunc

	mu    sync.Mutex
	ready chan struct{} // closed at the first answer
	known bool
	// missed: a reader gave up waiting, so the first answer is news to it.
	missed bool
	obj    metav1.Object // nil: does not exist
	err    error
}

func (e *entry) value() (metav1.Object, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.obj == nil {
		return nil, notFound(e.ref)
	}
	return e.obj, nil
}

// giveUp notes that a reader did not wait for the first answer, and says why
// there was none.
func (e *entry) giveUp() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.missed = true
	return e.err
}

// set stores an answer and reports whether it is news.
func (e *entry) set(obj metav1.Object) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	news := (e.obj == nil) != (obj == nil) ||
		obj != nil && e.obj.GetResourceVersion() != obj.GetResourceVersion()
	if !e.known {
		news = e.missed
	}
	e.obj, e.err = obj, nil
	if !e.known {
		e.known = true
		close(e.ready)
	}
	return news
}

func (e *entry) fail(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.err = err
}

const (
	// The authorizer learns of a binding a moment after this node does, so the
	// first refusals are retried quickly.
	minRetry = 10 * time.Millisecond
	maxRetry = 30 * time.Second
)

// follow lists and watches one object until ctx ends. An error of the API
// never removes what is known.
func (c *Cache) follow(ctx context.Context, e *entry) {
	retry := minRetry
	for ctx.Err() == nil {
		began := time.Now()
		version, err := c.list(ctx, e)
		if err == nil {
			err = c.watch(ctx, e, version)
			if time.Since(began) > time.Second {
				retry = minRetry
			}
		}
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			e.fail(err)
		}
		if err != nil && retry >= time.Second {
			c.log.Warn("Cannot read object", "kind", e.ref.Kind, "namespace", e.ref.Namespace, "name", e.ref.Name, "err", err, "retry", retry)
		}
		select {
		case <-ctx.Done():
		case <-time.After(retry):
		}
		retry = min(2*retry, maxRetry)
	}
}

// list reads the object by a list of one, which also gives the version to
// watch from when the object does not exist.
func (c *Cache) list(ctx context.Context, e *entry) (string, error) {
	opts := metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, e.ref.Name).String()}
	var found metav1.Object
	var version string
	if e.ref.Kind == Secret {
		list, err := c.client.CoreV1().Secrets(e.ref.Namespace).List(ctx, opts)
		if err != nil {
			return "", err
		}
		for i := range list.Items {
			if list.Items[i].Name == e.ref.Name {
				found = &list.Items[i]
			}
		}
		version = list.ResourceVersion
	} else {
		list, err := c.client.CoreV1().ConfigMaps(e.ref.Namespace).List(ctx, opts)
		if err != nil {
			return "", err
		}
		for i := range list.Items {
			if list.Items[i].Name == e.ref.Name {
				found = &list.Items[i]
			}
		}
		version = list.ResourceVersion
	}
	if e.set(found) {
		c.changed(e.ref)
	}
	return version, nil
}

// watch applies events until the server ends the watch (nil) or it fails.
func (c *Cache) watch(ctx context.Context, e *entry, version string) error {
	opts := metav1.ListOptions{
		FieldSelector:   fields.OneTermEqualSelector(metav1.ObjectNameField, e.ref.Name).String(),
		ResourceVersion: version,
	}
	var w watch.Interface
	var err error
	if e.ref.Kind == Secret {
		w, err = c.client.CoreV1().Secrets(e.ref.Namespace).Watch(ctx, opts)
	} else {
		w, err = c.client.CoreV1().ConfigMaps(e.ref.Namespace).Watch(ctx, opts)
	}
	if err != nil {
		return err
	}
	defer w.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case event, open := <-w.ResultChan():
			if !open {
				return nil
			}
			if event.Type == watch.Error {
				return apierrors.FromObject(event.Object)
			}
			c.apply(e, event)
		}
	}
}

func (c *Cache) apply(e *entry, event watch.Event) {
	var obj metav1.Object
	switch o := event.Object.(type) {
	case *corev1.ConfigMap:
		obj = o
	case *corev1.Secret:
		obj = o
	}
	if obj == nil || obj.GetName() != e.ref.Name {
		return
	}
	if event.Type == watch.Deleted {
		obj = nil
	}
	if e.set(obj) {
		c.changed(e.ref)
	}
}
