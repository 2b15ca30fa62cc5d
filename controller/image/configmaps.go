package image

import (
	"context"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	coreinformers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// configMaps watches those ConfigMaps that Images are built from, each by its
// name: an informer of the kind would hold every ConfigMap of the cluster in
// memory for the sake of a few.
type configMaps struct {
	client kubernetes.Interface
	wake   func(image string)

	mu sync.Mutex
	// watches are by namespace/name of the ConfigMap, names by that of the Image.
	watches map[string]*configMapWatch
	names   map[string]string
}

type configMapWatch struct {
	informer cache.SharedIndexInformer
	stop     context.CancelFunc
	images   map[string]bool
}

func newConfigMaps(client kubernetes.Interface, wake func(image string)) *configMaps {
	return &configMaps{client: client, wake: wake, watches: map[string]*configMapWatch{}, names: map[string]string{}}
}

// get returns the ConfigMap from which an Image is built, nil if there is none. Not
// known yet is what it is until the first answer of the API; then and at every
// change the Image is woken. The watch ends with drop or ctx.
func (c *configMaps) get(ctx context.Context, image, namespace, name string) (found *corev1.ConfigMap, known bool) {
	key := namespace + "/" + name
	c.mu.Lock()
	if c.names[image] != key {
		c.dropLocked(image)
		c.addLocked(ctx, image, namespace, name)
	}
	watch := c.watches[key]
	c.mu.Unlock()
	if !watch.informer.HasSynced() {
		return nil, false
	}
	obj, exists, err := watch.informer.GetStore().GetByKey(key)
	if err != nil || !exists {
		return nil, err == nil
	}
	found, ok := obj.(*corev1.ConfigMap)
	return found, ok
}

// drop ends what get began for an Image.
func (c *configMaps) drop(image string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dropLocked(image)
}

func (c *configMaps) dropLocked(image string) {
	key, ok := c.names[image]
	if !ok {
		return
	}
	delete(c.names, image)
	watch := c.watches[key]
	delete(watch.images, image)
	if len(watch.images) == 0 {
		watch.stop()
		delete(c.watches, key)
	}
}

func (c *configMaps) addLocked(ctx context.Context, image, namespace, name string) {
	key := namespace + "/" + name
	c.names[image] = key
	watch, ok := c.watches[key]
	if !ok {
		watch = c.watch(ctx, key, namespace, name)
		c.watches[key] = watch
	}
	watch.images[image] = true
}

func (c *configMaps) watch(ctx context.Context, key, namespace, name string) *configMapWatch {
	ctx, stop := context.WithCancel(ctx)
	informer := coreinformers.NewFilteredConfigMapInformer(c.client, namespace, 0, cache.Indexers{}, func(options *metav1.ListOptions) {
		options.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, name).String()
	})
	wake := func(any) { c.wakeAll(key) }
	// It fails only on an informer that has stopped.
	_, _ = informer.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: wake, DeleteFunc: wake, UpdateFunc: func(_, now any) { wake(now) }})
	go informer.RunWithContext(ctx)
	go func() {
		if cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
			c.wakeAll(key)
		}
	}()
	return &configMapWatch{informer: informer, stop: stop, images: map[string]bool{}}
}

// wakeAll wakes the Images that are built from one ConfigMap.
func (c *configMaps) wakeAll(key string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	watch, ok := c.watches[key]
	if !ok {
		return
	}
	for image := range watch.images {
		c.wake(image)
	}
}
