// Package v1alpha1 holds Lighter's own API kinds, served beside the Kubernetes
// built-ins under the group lighter.dev.
//
// The same Go types serve as the storage version and as the in-memory (hub)
// version of the API server: the group has one version, so a conversion
// between two copies of every type would only cost time.
//
// +k8s:deepcopy-gen=package
// +k8s:openapi-gen=true
// +k8s:openapi-model-package=dev.lighter.api.v1alpha1
// +groupName=lighter.dev
// +groupGoName=Lighter
package v1alpha1
