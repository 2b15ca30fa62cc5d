package apiserver

import (
	"context"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/cache"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	"k8s.io/kubernetes/pkg/capabilities"
	"k8s.io/kubernetes/pkg/controlplane"
	controlplaneapiserver "k8s.io/kubernetes/pkg/controlplane/apiserver"
	"k8s.io/kubernetes/pkg/controlplane/apiserver/options"
	"k8s.io/kubernetes/pkg/controlplane/reconcilers"
	"k8s.io/kubernetes/pkg/kubeapiserver/admission"
	kubeletclient "k8s.io/kubernetes/pkg/kubelet/client"

	"lighter.dev/lighter/api/v1alpha1"
)

const (
	// agentPort is where agents serve if their Node object does not say.
	agentPort = 10250
	// agentTimeout bounds a request to an agent that is not a stream.
	agentTimeout = 5 * time.Second
	// announceEvery is how often a server says that it lives, announceLife how long
	// that is believed. Upstream has 10 and 15 s, in which a pod would meet a dead
	// server again and again.
	announceEvery = 3 * time.Second
	announceLife  = 8 * time.Second
)

// admissionOff are the upstream plugins for kinds that are not served here, and
// DefaultTolerationSeconds, which would keep the pods of a lost host for five
// minutes: controller/lifecycle decides about pods that say nothing themselves.
var admissionOff = []string{
	"ClusterTrustBundleAttest", "DefaultIngressClass", "DefaultStorageClass", "DefaultTolerationSeconds", "LimitRanger",
	"MutatingAdmissionPolicy", "MutatingAdmissionWebhook", "NodeDeclaredFeatureValidator",
	"PersistentVolumeClaimResize", "PodGroupProtection", "PodTopologyLabels", "ResourceQuota", "RuntimeClass",
	"StorageObjectInUseProtection", "ValidatingAdmissionPolicy", "ValidatingAdmissionWebhook",
}

// settings translates our configuration into upstream's options.
func settings(cfg Config) *options.Options {
	o := options.NewOptions()
	o.Etcd.StorageConfig.Transport = cfg.Etcd
	o.Etcd.EncryptionProviderConfigFilepath = cfg.Authority.EncryptionFile()
	// etcd compacts by itself; two compactors would only do the work twice.
	o.Etcd.StorageConfig.CompactionInterval = 0
	// Upstream's check opens two connections of its own.
	o.Etcd.SkipHealthEndpoints = cfg.NewClient != nil

	o.SecureServing.BindPort = cfg.Port
	o.SecureServing.Required = true
	if cfg.Bind != nil {
		o.SecureServing.BindAddress = cfg.Bind
	}
	o.SecureServing.Listener = cfg.Listener
	o.SecureServing.ServerCert.CertKey.CertFile, o.SecureServing.ServerCert.CertKey.KeyFile = cfg.Authority.ServerCert()
	o.GenericServerRunOptions.AdvertiseAddress = cfg.Advertise
	// Longer than any client's back-off would only delay a restart.
	o.GenericServerRunOptions.ShutdownDelayDuration = 0

	auth := o.Authentication
	auth.ClientCert.ClientCA = cfg.Authority.CAFile()
	auth.BootstrapToken.Enable = true
	auth.ServiceAccounts.Issuers = []string{"https://kubernetes.default.svc." + cfg.ClusterDomain}
	auth.ServiceAccounts.KeyFiles = []string{cfg.Authority.ServiceAccountKeyFile()}
	// RBAC lets them see health and the version only, as in every Kubernetes cluster.
	auth.Anonymous.Allow = true
	auth.ServiceAccounts.OptionalTokenGetter = tokenGetter
	o.ServiceAccountSigningKeyFile = cfg.Authority.ServiceAccountKeyFile()
	o.Authorization.Modes = []string{"Node", "RBAC"}

	// Fairness between tenants costs flow schemas, informers and memory; a limit
	// on requests in flight remains.
	o.Features.EnablePriorityAndFairness = false
	o.Features.EnableProfiling = false
	// Its options only print complaints about what is not set.
	o.Metrics = nil
	o.Admission.GenericAdmission.EnablePlugins = []string{"NodeRestriction"}
	o.Admission.GenericAdmission.DisablePlugins = admissionOff
	return o
}

// configure builds upstream's configuration.
func configure(ctx context.Context, cfg Config) (*controlplane.Config, error) {
	completed, err := settings(cfg).Complete(ctx, nil, nil)
	if err != nil {
		return nil, err
	}
	name, err := cache.NewInformerName("lighter")
	if err != nil {
		return nil, err
	}
	generic, informers, storage, err := controlplaneapiserver.BuildGenericConfig(
		completed, []*runtime.Scheme{legacyscheme.Scheme}, served(), definitions, name)
	if err != nil {
		return nil, err
	}
	if cfg.NewClient != nil {
		generic.RESTOptionsGetter = inProcess{generic.RESTOptionsGetter, cfg.NewClient}
		generic.AddHealthChecks(etcdHealth(cfg.NewClient()))
	}
	generic.SkipOpenAPIInstallation = true // documents does it
	generic.LongRunningFunc = untimed(generic.LongRunningFunc)
	// Our kind has no protobuf form.
	storage.SetSerializer(v1alpha1.Resource("images"), runtime.ContentTypeJSON, nil)
	capabilities.Setup(true, 0)
	initializers, err := (&admission.Config{}).New()
	if err != nil {
		return nil, err
	}
	controlPlane, _, err := controlplaneapiserver.CreateConfig(completed, generic, informers, nil, storage, nil, initializers)
	if err != nil {
		return nil, err
	}
	crt, key := cfg.Authority.KubeletClientCert()
	config := &controlplane.Config{ControlPlane: *controlPlane, Extra: controlplane.Extra{
		KubeletClientConfig: kubeletclient.KubeletClientConfig{
			Port: agentPort, PreferredAddressTypes: []string{"InternalIP"}, HTTPTimeout: agentTimeout,
			TLSClientConfig: kubeletclient.KubeletTLSConfig{CertFile: crt, KeyFile: key, CAFile: cfg.Authority.CAFile()},
		},
		ServiceIPRange:       *cfg.ServiceCIDR,
		APIServerServicePort: 443,
		// Every server keeps its address in the Service "kubernetes" for as long as it
		// lives; agents and pods find the others there.
		EndpointReconcilerConfig:   controlplane.EndpointReconcilerConfig{Interval: announceEvery},
		MasterEndpointReconcileTTL: announceLife,
	}}
	if cfg.Advertise.IsLoopback() {
		// Nobody else can reach it, so there is no endpoint to publish.
		config.Extra.EndpointReconcilerType = reconcilers.NoneEndpointReconcilerType
	}
	return config, nil
}
