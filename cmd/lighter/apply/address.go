package apply

import (
	"context"
	"fmt"
	"io"
	"net"
	neturl "net/url"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
)

const (
	// answerLimit is how long the hosts have, for all addresses together, to hear of
	// the pods that we saw become ready. Some addresses cannot be reached from here.
	answerLimit = 5 * time.Second
	answerPause = 50 * time.Millisecond
)

// printAddresses says where the applied NodePort services and host ports answer.
func printAddresses(ctx context.Context, client kubernetes.Interface, objects []object, out io.Writer) error {
	wanted := false
	for _, o := range objects {
		wanted = wanted || o.kind() == "service" || o.kind() == "deployment.apps"
	}
	if !wanted {
		return nil
	}
	nodes, err := client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("find the hosts' addresses: %w", err)
	}
	waiting, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	for _, o := range objects {
		switch o.kind() {
		case "service":
			service, err := client.CoreV1().Services(o.Namespace).Get(ctx, o.Name, metav1.GetOptions{})
			if err != nil {
				return err
			}
			for _, address := range nodePortAddresses(service, nodes.Items) {
				fmt.Fprintf(out, "service/%s %s\n", o.Name, found(waiting, address))
			}
		case "deployment.apps":
			for _, container := range containersOf(o.content) {
				for _, port := range container.Ports {
					if ip := readyIP(nodes.Items); port.HostPort != 0 && ip != "" {
						fmt.Fprintf(out, "deployment/%s answers at %s on the hosts that run it\n", o.Name, url(port.Name, ip, port.HostPort))
					}
				}
			}
		}
	}
	return nil
}

// found says what became of the wait for an address.
func found(ctx context.Context, address string) string {
	if answers(ctx, address) {
		return "answers at " + address
	}
	return fmt.Sprintf("is at %s, which does not answer here yet", address)
}

// answers waits until somebody takes a connection at a URL, or ctx ends.
func answers(ctx context.Context, address string) bool {
	at, err := neturl.Parse(address)
	if err != nil {
		return false
	}
	for {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", at.Host)
		if err == nil {
			_ = conn.Close()
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(answerPause):
		}
	}
}

func containersOf(deployment *unstructured.Unstructured) []corev1.Container {
	content, ok, err := unstructured.NestedMap(deployment.Object, "spec", "template", "spec")
	if !ok || err != nil {
		return nil
	}
	var spec corev1.PodSpec
	if runtime.DefaultUnstructuredConverter.FromUnstructured(content, &spec) != nil {
		return nil
	}
	return spec.Containers
}

// nodePortAddresses are a service's addresses on the first host that is Ready:
// every host answers for all.
func nodePortAddresses(service *corev1.Service, nodes []corev1.Node) []string {
	ip := readyIP(nodes)
	if ip == "" {
		return nil
	}
	var addresses []string
	for _, port := range service.Spec.Ports {
		if port.NodePort != 0 && (port.Protocol == corev1.ProtocolTCP || port.Protocol == "") {
			addresses = append(addresses, url(port.Name, ip, port.NodePort))
		}
	}
	return addresses
}

// url guesses the scheme from the port's name.
func url(portName, ip string, port int32) string {
	if portName == "https" || port == 443 {
		return fmt.Sprintf("https://%s:%d", ip, port)
	}
	return fmt.Sprintf("http://%s:%d", ip, port)
}

func readyIP(nodes []corev1.Node) string {
	for _, node := range nodes {
		for _, condition := range node.Status.Conditions {
			if condition.Type != corev1.NodeReady || condition.Status != corev1.ConditionTrue {
				continue
			}
			for _, address := range node.Status.Addresses {
				if address.Type == corev1.NodeInternalIP {
					return address.Address
				}
			}
		}
	}
	return ""
}
