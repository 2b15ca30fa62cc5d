package containers

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestVolumesStayOnTheirHost: where a container goes that uses volumes, by what is
// known of them.
func TestVolumesStayOnTheirHost(t *testing.T) {
	c, _ := cluster()
	using := func(node string, volumes ...string) *corev1.Pod {
		t.Helper()
		pod, err := Options{Image: "box", Node: node, Storage: StorageOptions{Volumes: volumes}}.Pod("shop")
		if err != nil {
			t.Fatal(err)
		}
		return pod
	}
	on := func(pod *corev1.Pod, node string) *corev1.Pod {
		pod.Spec.NodeName = node
		return pod
	}
	// The first use is free; it is remembered, and another's is added.
	for host, volume := range map[string]string{"host-1": "a:/a", "host-2": "b:/b"} {
		first := using("", volume, volume+"2")
		if err := c.findVolumes(t.Context(), first); err != nil || first.Spec.NodeSelector[corev1.LabelHostname] != "" {
			t.Errorf("%v, %v", first.Spec.NodeSelector, err)
		}
		if err := c.keepVolumes(t.Context(), on(first, host)); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		pod  *corev1.Pod
		host string // "" is an error
		want string
	}{
		{using("", "a:/a"), "host-1", ""},
		{using("", "b:/b", "new:/new", "/etc:/etc"), "host-2", ""},
		{using("host-1", "a:/a"), "host-1", ""},
		{using("host-2", "a:/a"), "", "volume a lies on host host-1, the container is to run on host-2"},
		{using("", "a:/a", "b:/b"), "", "volume b lies on host host-2, the container is to run on host-1"},
	} {
		err := c.findVolumes(t.Context(), tt.pod)
		if tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) || tt.want == "" && (err != nil || tt.pod.Spec.NodeSelector[corev1.LabelHostname] != tt.host) {
			t.Errorf("%v: %v, %v; want %s%s", volumesOf(tt.pod), tt.pod.Spec.NodeSelector, err, tt.host, tt.want)
		}
	}
	// Somebody else was first, elsewhere.
	if err := c.keepVolumes(t.Context(), on(using("", "a:/a", "c:/c"), "host-3")); err == nil || !strings.Contains(err.Error(), "volume a lies on host host-1") {
		t.Errorf("a volume in two places: %v", err)
	}
	hosts, err := c.Kube.CoreV1().ConfigMaps("shop").Get(t.Context(), volumeHosts, metav1.GetOptions{})
	if err != nil || hosts.Data["a"] != "host-1" || hosts.Data["b"] != "host-2" || hosts.Data["c"] != "" {
		t.Errorf("%v, %v", hosts.Data, err)
	}
	if err := c.keepVolumes(t.Context(), on(using("", "/own"), "host-3")); err != nil {
		t.Error(err)
	}
}
