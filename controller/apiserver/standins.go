package apiserver

import (
	"context"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	serviceaccountcontroller "k8s.io/kubernetes/pkg/controller/serviceaccount"
	"k8s.io/kubernetes/pkg/serviceaccount"
)

// tokenGetter finds what service account tokens are bound to. It is upstream's,
// and the first part of upstream's code to see the informer factory: the moment
// to put stand-ins for the kinds that upstream watches and we do not serve.
func tokenGetter(factory informers.SharedInformerFactory) serviceaccount.ServiceAccountTokenGetter {
	var client kubernetes.Interface
	for _, kind := range []struct{ object, list runtime.Object }{
		{&admissionregistrationv1.MutatingWebhookConfiguration{}, &admissionregistrationv1.MutatingWebhookConfigurationList{}},
		{&admissionregistrationv1.ValidatingWebhookConfiguration{}, &admissionregistrationv1.ValidatingWebhookConfigurationList{}},
		{&corev1.PersistentVolumeClaim{}, &corev1.PersistentVolumeClaimList{}},
		{&storagev1.CSIDriver{}, &storagev1.CSIDriverList{}},
	} {
		factory.InformerFor(kind.object, func(c kubernetes.Interface, _ time.Duration) cache.SharedIndexInformer {
			client = c
			return standIn(kind.object, kind.list)
		})
	}
	core, webhooks := factory.Core().V1(), factory.Admissionregistration().V1()
	return serviceaccountcontroller.NewGetterFromClient(client,
		core.Secrets().Lister(), core.ServiceAccounts().Lister(), core.Pods().Lister(), core.Nodes().Lister(),
		webhooks.ValidatingWebhookConfigurations().Lister(), webhooks.MutatingWebhookConfigurations().Lister())
}

// standIn is an informer of a kind of which there is never an object.
func standIn(object, list runtime.Object) cache.SharedIndexInformer {
	source := &cache.ListWatch{
		ListWithContextFunc: func(context.Context, metav1.ListOptions) (runtime.Object, error) { return list.DeepCopyObject(), nil },
		WatchFuncWithContext: func(context.Context, metav1.ListOptions) (watch.Interface, error) {
			return watch.NewFake(), nil
		},
	}
	return cache.NewSharedIndexInformer(cache.ToListWatcherWithWatchListSemantics(source, listsFirst{}), object, 0,
		cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc})
}

// listsFirst tells the informer that our empty watch does not begin with a list.
type listsFirst struct{}

func (listsFirst) IsWatchListSemanticsUnSupported() bool { return true }
