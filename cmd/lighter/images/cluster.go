package images

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"lighter.dev/lighter/api/agentapi"
	"lighter.dev/lighter/api/client/clientset"
)

// Cluster is what the verbs work on.
type Cluster struct {
	Kube    kubernetes.Interface
	Lighter clientset.Interface
	// Agent leads to a node's agent, Object to an Image object's content.
	Agent  func(node string) (*agentapi.Client, error)
	Object func(namespace, name string) (*agentapi.ObjectClient, error)
	// Namespace is that of the Image objects whose names count.
	Namespace string

	In io.Reader
	// Out gets the result, Err progress and warnings.
	Out, Err io.Writer
}

// Connect makes the clients.
func Connect(config *rest.Config, namespace string) (*Cluster, error) {
	// The server bounds what its clients may ask, fairly between all of them.
	config = rest.CopyConfig(config)
	config.QPS = -1
	kube, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	lighter, err := clientset.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	return &Cluster{
		Kube: kube, Lighter: lighter, Namespace: namespace,
		Agent: func(node string) (*agentapi.Client, error) { return agentapi.NewProxyClient(config, node) },
		Object: func(namespace, name string) (*agentapi.ObjectClient, error) {
			return agentapi.NewObjectClient(config, namespace, name)
		},
	}, nil
}

// hosts are the names of the nodes, sorted: those that are Ready and the others.
func (c *Cluster) hosts(ctx context.Context) (ready, silent []string, err error) {
	if c.alone() {
		return []string{thisHost}, nil, nil
	}
	nodes, err := c.Kube.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, nil, fmt.Errorf("list hosts: %w", err)
	}
	for _, node := range nodes.Items {
		if isReady(&node) {
			ready = append(ready, node.Name)
		} else {
			silent = append(silent, node.Name)
		}
	}
	slices.Sort(ready)
	slices.Sort(silent)
	return ready, silent, nil
}

func isReady(node *corev1.Node) bool {
	for _, condition := range node.Status.Conditions {
		if condition.Type == corev1.NodeReady {
			return condition.Status == corev1.ConditionTrue
		}
	}
	return false
}

// hostError is why one host did not do what it was asked.
type hostError struct {
	host string
	err  error
}

func (e hostError) Error() string { return e.host + ": " + e.err.Error() }
func (e hostError) Unwrap() error { return e.err }

// each asks hosts side by side, and returns what went wrong in the hosts' order.
func (c *Cluster) each(ctx context.Context, hosts []string, ask func(ctx context.Context, host string, agent *agentapi.Client) error) []hostError {
	var mu sync.Mutex
	var failed []hostError
	var group sync.WaitGroup
	for _, host := range hosts {
		group.Go(func() {
			agent, err := c.Agent(host)
			if err == nil {
				err = ask(ctx, host, agent)
			}
			if err != nil {
				mu.Lock()
				defer mu.Unlock()
				failed = append(failed, hostError{host, err})
			}
		})
	}
	group.Wait()
	slices.SortFunc(failed, func(a, b hostError) int { return cmp.Compare(a.host, b.host) })
	return failed
}

// join makes one error of those of several hosts.
func join(failed []hostError) error {
	errs := make([]error, 0, len(failed))
	for _, err := range failed {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// warn tells what goes on in spite of an error.
func (c *Cluster) warn(format string, args ...any) {
	fmt.Fprintf(c.Err, "Warning: "+format+"\n", args...)
}
