package containers

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	kubetesting "k8s.io/client-go/testing"
)

// TestChosenPorts: which ports of the host are left to us, and where they lie.
func TestChosenPorts(t *testing.T) {
	for text, want := range map[string]struct {
		chosen      bool
		first, last int32
		count       int
	}{
		"80":                  {true, firstDynamicPort, lastDynamicPort, 1},
		"80/udp":              {true, firstDynamicPort, lastDynamicPort, 1},
		"80-89":               {true, firstDynamicPort, lastDynamicPort, 10},
		"127.0.0.1::80":       {true, firstDynamicPort, lastDynamicPort, 1},
		"8000-8010:80":        {true, 8000, 8010, 1},
		"8000-8002:80-82/udp": {false, 8000, 8002, 3},
		"[::1]:8000:80":       {false, 8000, 8000, 1},
	} {
		ports, err := parsePorts([]string{text})
		if err != nil || len(ports) != want.count {
			t.Errorf("%s: %v, %v", text, ports, err)
		}
		if (NetworkOptions{Publish: []string{text}}).choosesPorts() != want.chosen {
			t.Errorf("%s: is it left to us? want %v", text, want.chosen)
		}
		seen := map[int32]bool{}
		for _, p := range ports {
			if p.HostPort < want.first || p.HostPort > want.last || seen[p.HostPort] {
				t.Errorf("%s: %v", text, ports)
			}
			seen[p.HostPort] = true
		}
	}
	// What one flag has taken, another does not choose.
	ports, err := parsePorts([]string{"8000-8001:80", "8000-8001:81"})
	if err != nil || ports[0].HostPort == ports[1].HostPort {
		t.Errorf("%v, %v", ports, err)
	}
}

// TestTakenPorts: ports that we chose are chosen anew when no host has them free;
// those that the user named are not.
func TestTakenPorts(t *testing.T) {
	for publish, want := range map[string]struct{ tries, code int }{"80": {3, 0}, "8000:80": {1, codeEngine}} {
		c, _ := cluster()
		tries := 0
		c.Kube.(*fake.Clientset).PrependReactor("create", "pods", func(action kubetesting.Action) (bool, runtime.Object, error) {
			pod := action.(kubetesting.CreateAction).GetObject().(*corev1.Pod)
			if tries++; tries < 3 {
				pod.Status.Conditions = []corev1.PodCondition{{
					Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonUnschedulable, Message: "1 node(s) didn't have free ports",
				}}
				return false, nil, nil
			}
			pod.Spec.NodeName = "host-1"
			pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: mainContainer, ContainerID: "x", State: runs()}}
			return false, nil, nil
		})
		code, err := c.Run(t.Context(), Options{Image: "box", Name: "web", Detach: true, Network: NetworkOptions{Publish: []string{publish}}})
		if code != want.code || (err != nil) != (code != 0) || tries != want.tries {
			t.Errorf("-p %s: code %d after %d tries, %v", publish, code, tries, err)
		}
	}
}

func TestPort(t *testing.T) {
	c, out := cluster(podWith(corev1.ContainerStatus{State: runs()}, func(pod *corev1.Pod) {
		pod.Status.HostIP = "10.0.0.2"
		pod.Spec.Containers[0].Ports = []corev1.ContainerPort{
			{ContainerPort: 80, HostPort: 50000, Protocol: corev1.ProtocolTCP},
			{ContainerPort: 53, HostPort: 50001, Protocol: corev1.ProtocolUDP, HostIP: "127.0.0.1"}, {ContainerPort: 9},
		}
	}))
	for wanted, want := range map[string]string{
		"": "80/tcp -> 10.0.0.2:50000\n53/udp -> 127.0.0.1:50001\n", "80": "10.0.0.2:50000\n", "53/udp": "127.0.0.1:50001\n",
		"53": "port 53 of container web is not published", "9": "port 9 of", "x/icmp": "unknown protocol",
	} {
		out.Reset()
		err := c.Port(t.Context(), "web", wanted)
		if err != nil && !strings.Contains(err.Error(), want) || err == nil && out.String() != want {
			t.Errorf("%q: %q, %v", wanted, out, err)
		}
	}
}
