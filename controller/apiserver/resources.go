package apiserver

import (
	"k8s.io/apimachinery/pkg/runtime/schema"
	serverstorage "k8s.io/apiserver/pkg/server/storage"
	"k8s.io/kubernetes/pkg/controlplane"

	"lighter.dev/lighter/api/v1alpha1"
)

// unserved are the API groups that Kubernetes serves and nothing here acts on.
// A manifest of such a kind is refused at once ("no matches for kind") instead
// of being stored and ignored.
var unserved = []schema.GroupVersion{
	{Group: "admissionregistration.k8s.io", Version: "v1"},
	{Group: "autoscaling", Version: "v1"},
	{Group: "autoscaling", Version: "v2"},
	{Group: "batch", Version: "v1"},
	{Group: "flowcontrol.apiserver.k8s.io", Version: "v1"},
	{Group: "node.k8s.io", Version: "v1"},
	{Group: "storagemigration.k8s.io", Version: "v1"},
}

// unservedResources are single kinds of groups that are served otherwise. What
// stays of a group although nothing here acts on it is there for the upstream
// code that reads it: persistentvolumes, volumeattachments and resourceslices
// for the node authoriser, poddisruptionbudgets for evictions, servicecidrs and
// ipaddresses for the allocation of service addresses.
var unservedResources = []schema.GroupVersionResource{
	{Version: "v1", Resource: "limitranges"},
	{Version: "v1", Resource: "persistentvolumeclaims"},
	{Version: "v1", Resource: "replicationcontrollers"},
	{Version: "v1", Resource: "resourcequotas"},
	{Group: "apps", Version: "v1", Resource: "daemonsets"},
	{Group: "apps", Version: "v1", Resource: "statefulsets"},
	{Group: "certificates.k8s.io", Version: "v1", Resource: "clustertrustbundles"},
	{Group: "networking.k8s.io", Version: "v1", Resource: "ingressclasses"},
	{Group: "networking.k8s.io", Version: "v1", Resource: "ingresses"},
	{Group: "networking.k8s.io", Version: "v1", Resource: "networkpolicies"},
	{Group: "resource.k8s.io", Version: "v1", Resource: "deviceclasses"},
	{Group: "resource.k8s.io", Version: "v1", Resource: "devicetaintrules"},
	{Group: "resource.k8s.io", Version: "v1", Resource: "resourceclaims"},
	{Group: "resource.k8s.io", Version: "v1", Resource: "resourceclaimtemplates"},
	{Group: "storage.k8s.io", Version: "v1", Resource: "csidrivers"},
	{Group: "storage.k8s.io", Version: "v1", Resource: "csinodes"},
	{Group: "storage.k8s.io", Version: "v1", Resource: "csistoragecapacities"},
	{Group: "storage.k8s.io", Version: "v1", Resource: "storageclasses"},
	{Group: "storage.k8s.io", Version: "v1", Resource: "volumeattributesclasses"},
}

// served is which resources there are.
func served() *serverstorage.ResourceConfig {
	config := controlplane.DefaultAPIResourceConfigSource()
	config.DisableVersions(unserved...)
	config.DisableResources(unservedResources...)
	config.EnableVersions(v1alpha1.SchemeGroupVersion)
	return config
}
