package apiserver

import (
	"context"
	"errors"
	"log/slog"
	"maps"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"

	"lighter.dev/lighter/controller/reconcile"
)

const (
	defaultAccount = "default"
	// rootCAConfigMap is where pods' projected token volumes find the CA.
	rootCAConfigMap = "kube-root-ca.crt"
	rootCAKey       = "ca.crt"
)

// tenancy gives every namespace what pods in it rely on: the service account
// "default" and the ConfigMap with the cluster's CA.
type tenancy struct {
	client     kubernetes.Interface
	caPEM      string
	namespaces corelisters.NamespaceLister
	accounts   corelisters.ServiceAccountLister
	runner     *reconcile.Runner
}

func newTenancy(client kubernetes.Interface, factory informers.SharedInformerFactory, caPEM string, log *slog.Logger) *tenancy {
	namespaces, accounts := factory.Core().V1().Namespaces(), factory.Core().V1().ServiceAccounts()
	t := &tenancy{client: client, caPEM: caPEM, namespaces: namespaces.Lister(), accounts: accounts.Lister()}
	t.runner = reconcile.New("tenancy", t.sync, log)
	t.watch(namespaces.Informer(), t.runner.EnqueueObject)
	t.watch(accounts.Informer(), func(obj any) {
		if account, ok := reconcile.Object[*corev1.ServiceAccount](obj); ok && account.Name == defaultAccount {
			t.runner.Enqueue(account.Namespace)
		}
	})
	return t
}

// watch calls f for objects that are new or gone; neither kind changes in a way
// that matters here.
func (t *tenancy) watch(informer cache.SharedIndexInformer, f func(any)) {
	handle, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: f, DeleteFunc: f})
	if err != nil {
		return // the informer has stopped, and so has the process
	}
	t.runner.WaitFor(handle.HasSynced)
}

func (t *tenancy) run(ctx context.Context) {
	const workers = 2
	// Run fails only when ctx ends.
	_ = t.runner.Run(ctx, workers)
}

func (t *tenancy) sync(ctx context.Context, name string) error {
	namespace, err := t.namespaces.Get(name)
	if apierrors.IsNotFound(err) || err == nil && namespace.Status.Phase == corev1.NamespaceTerminating {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(t.ensureAccount(ctx, name), t.ensureCA(ctx, name))
}

func (t *tenancy) ensureAccount(ctx context.Context, namespace string) error {
	if _, err := t.accounts.ServiceAccounts(namespace).Get(defaultAccount); !apierrors.IsNotFound(err) {
		return err
	}
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: defaultAccount, Namespace: namespace}}
	_, err := t.client.CoreV1().ServiceAccounts(namespace).Create(ctx, account, metav1.CreateOptions{})
	return ignore(err, apierrors.IsAlreadyExists, terminating)
}

// ensureCA reads the ConfigMap itself: an informer would hold every ConfigMap of
// the cluster in memory for the sake of one per namespace.
func (t *tenancy) ensureCA(ctx context.Context, namespace string) error {
	configMaps := t.client.CoreV1().ConfigMaps(namespace)
	want := map[string]string{rootCAKey: t.caPEM}
	have, err := configMaps.Get(ctx, rootCAConfigMap, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		_, err = configMaps.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: rootCAConfigMap, Namespace: namespace}, Data: want}, metav1.CreateOptions{})
		return ignore(err, apierrors.IsAlreadyExists, terminating)
	}
	if err != nil || maps.Equal(have.Data, want) {
		return err
	}
	have = have.DeepCopy()
	have.Data = want
	_, err = configMaps.Update(ctx, have, metav1.UpdateOptions{})
	return ignore(err, terminating)
}

// terminating: the namespace is being deleted and takes nothing new.
func terminating(err error) bool {
	return apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause)
}

func ignore(err error, tolerable ...func(error) bool) error {
	for _, ok := range tolerable {
		if ok(err) {
			return nil
		}
	}
	return err
}
