// Package cluster is what a server tells its agents about the cluster, in two
// objects of the namespace kube-system that only agents and admins can read.
package cluster

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// InfoConfigMap holds an Info.
	InfoConfigMap = "lighter-cluster"
	// GossipSecret holds, under GossipKey, the AES key of the membership gossip.
	GossipSecret = "lighter-gossip"
	// GossipKey is the key in the Secret's data.
	GossipKey = "key"
	// GossipKeyBytes is the length of its value.
	GossipKeyBytes = 32
)

// Info is what agents have to agree on. It never changes.
type Info struct {
	// ID follows from the cluster's CA.
	ID string
	// PodCIDR and ServiceCIDR are the address ranges of the whole cluster.
	PodCIDR, ServiceCIDR string
	// Domain is the DNS domain of services, such as cluster.local.
	Domain string
}

// ConfigMap is the object that holds the Info.
func (i Info) ConfigMap() *corev1.ConfigMap {
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: InfoConfigMap, Namespace: metav1.NamespaceSystem},
		Data: map[string]string{
			"clusterID": i.ID, "podCIDR": i.PodCIDR, "serviceCIDR": i.ServiceCIDR, "clusterDomain": i.Domain,
		},
	}
}

// FromConfigMap reads what ConfigMap wrote.
func FromConfigMap(m *corev1.ConfigMap) Info {
	return Info{ID: m.Data["clusterID"], PodCIDR: m.Data["podCIDR"], ServiceCIDR: m.Data["serviceCIDR"], Domain: m.Data["clusterDomain"]}
}
