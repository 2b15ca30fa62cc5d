package main

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/util/retry"

	"lighter.dev/lighter/agent/objects"
	"lighter.dev/lighter/agent/pod"
	"lighter.dev/lighter/agent/probe"
	"lighter.dev/lighter/agent/status"
	"lighter.dev/lighter/agent/volume"
	"lighter.dev/lighter/api/v1alpha1"
	"lighter.dev/lighter/overlay/attach"
)

// openPods makes the pod engine out of the parts that are open by now.
func (h *host) openPods(ctx context.Context, network *hostNetwork) error {
	watched := objects.New(ctx, h.watching, h.logOf("objects"))
	h.statuses = status.New(h.client, h.logOf("status"))
	volumes, err := volume.New(volume.Config{
		Root: h.dir("volumes"), Objects: watched, Tokens: h.requestToken, NodeName: h.options.nodeName,
		Allocatable: h.node.Allocatable, Log: h.logOf("volume"),
	})
	if err != nil {
		return err
	}
	services := h.informers.Core().V1().Services().Lister()
	h.pods = pod.New(pod.Config{
		Engine: h.engine, Images: h.store, Network: podNetwork{network.attacher}, Volumes: volumes, Objects: watched,
		Probes:   probe.New(probe.Config{Exec: h.engine.ExecSync, Recorder: h.recorder, Log: h.logOf("probe")}),
		Statuses: h.statuses, Recorder: h.recorder, Log: h.logOf("pod"),
		NodeName:    h.options.nodeName,
		HostIPs:     func() []netip.Addr { return []netip.Addr{h.ip} },
		Allocatable: h.node.Allocatable,
		Services: func() []*corev1.Service {
			all, _ := services.List(labels.Everything()) // a cache does not fail
			return all
		},
		LogDir:        h.options.logDir,
		ClusterDNS:    func() []netip.Addr { return []netip.Addr{network.dnsServer()} },
		ClusterDomain: network.facts.Cluster.Domain,
		HostsFile:     "/etc/hosts", ResolvConf: "/etc/resolv.conf",
	})
	return nil
}

// requestToken makes tokens for projected service account volumes. The API server
// allows them once its own caches show the pod on this node, which may be some
// milliseconds after this host has seen it.
func (h *host) requestToken(ctx context.Context, namespace, account string, request *authenticationv1.TokenRequest) (token *authenticationv1.TokenRequest, err error) {
	patience := wait.Backoff{Duration: 5 * time.Millisecond, Factor: 2, Steps: 9} // 2.5 s
	retryErr := retry.OnError(patience, apierrors.IsForbidden, func() error {
		token, err = h.client.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, account, request, metav1.CreateOptions{})
		return err
	})
	return token, retryErr
}

// podNetwork attaches pods to the overlay.
type podNetwork struct{ attacher *attach.Attacher }

// Attach implements pod.Network.
func (n podNetwork) Attach(ctx context.Context, box pod.Sandbox) ([]netip.Addr, error) {
	converted, err := sandbox(box)
	if err != nil {
		return nil, err
	}
	result, err := n.attacher.Attach(ctx, converted)
	return result.IPs, err
}

// Detach implements pod.Network.
func (n podNetwork) Detach(ctx context.Context, box pod.Sandbox) error {
	return n.attacher.Detach(ctx, attach.Sandbox{PodUID: box.PodUID, NetNS: box.NetNS})
}

// Keep implements pod.Network.
func (n podNetwork) Keep(ctx context.Context, podUIDs []string) error {
	return n.attacher.Keep(ctx, podUIDs)
}

// sandbox says in the overlay's words what a pod is.
func sandbox(box pod.Sandbox) (attach.Sandbox, error) {
	out := attach.Sandbox{PodUID: box.PodUID, PodNamespace: box.Namespace, PodName: box.Name, NetNS: box.NetNS, Network: attach.Kind(box.Network)}
	switch box.Network {
	case "", v1alpha1.NetworkBridge, v1alpha1.NetworkNone:
	default:
		return out, fmt.Errorf("annotation %s is %q: want %s or %s", v1alpha1.NetworkAnnotation, box.Network, v1alpha1.NetworkBridge, v1alpha1.NetworkNone)
	}
	for _, port := range box.Ports {
		if port.HostPort == 0 || box.HostNetwork {
			continue
		}
		published := attach.Port{Protocol: port.Protocol, HostPort: uint16(port.HostPort), ContainerPort: uint16(port.ContainerPort)}
		if port.HostIP != "" {
			var err error
			if published.HostIP, err = netip.ParseAddr(port.HostIP); err != nil {
				return out, fmt.Errorf("hostIP of port %d: %w", port.HostPort, err)
			}
		}
		out.Ports = append(out.Ports, published)
	}
	return out, nil
}
