package cluster

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func TestThereAndBack(t *testing.T) {
	for name, info := range map[string]Info{
		"full":  {ID: "0f", PodCIDR: "10.42.0.0/16", ServiceCIDR: "10.43.0.0/16", Domain: "cluster.local"},
		"empty": {},
	} {
		m := info.ConfigMap()
		if m.Name != InfoConfigMap || m.Namespace != "kube-system" {
			t.Errorf("%s: lies at %s/%s", name, m.Namespace, m.Name)
		}
		if back := FromConfigMap(m); back != info {
			t.Errorf("%s: %+v became %+v", name, info, back)
		}
	}
	// A ConfigMap of somebody else's is no reason to panic.
	if info := FromConfigMap(&corev1.ConfigMap{}); info != (Info{}) {
		t.Errorf("nothing became %+v", info)
	}
}

// TestOnDisk holds the names that agents of other releases read.
func TestOnDisk(t *testing.T) {
	data := Info{ID: "a", PodCIDR: "b", ServiceCIDR: "c", Domain: "d"}.ConfigMap().Data
	want := map[string]string{"clusterID": "a", "podCIDR": "b", "serviceCIDR": "c", "clusterDomain": "d"}
	for key, value := range want {
		if data[key] != value {
			t.Errorf("%s is %q, want %q", key, data[key], value)
		}
	}
	if len(data) != len(want) {
		t.Errorf("%d keys: a new one needs a place here", len(data))
	}
}
