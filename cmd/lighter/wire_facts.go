package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"time"

	"github.com/containerd/continuity"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/tools/cache"

	"lighter.dev/lighter/api/cluster"
)

// networkFacts are what a host's network is made from. They are kept on disk, so
// that a host which reboots while the control plane is away brings its pods back.
type networkFacts struct {
	// PodCIDR is this host's part of the pod network.
	PodCIDR netip.Prefix
	Cluster cluster.Info
	// GossipKey is secret.
	GossipKey []byte
}

func loadFacts(path string) (networkFacts, bool) {
	var facts networkFacts
	content, err := os.ReadFile(path)
	if err != nil || json.Unmarshal(content, &facts) != nil {
		return networkFacts{}, false
	}
	return facts, facts.PodCIDR.IsValid() && len(facts.GossipKey) > 0
}

func (f networkFacts) save(path string) error {
	content, err := json.Marshal(f)
	if err != nil {
		return err
	}
	return continuity.AtomicWriteFile(path, content, 0o600)
}

// forgetFacts removes the kept facts; it is well if there are none.
func forgetFacts(path string) error {
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// facts returns the kept facts, or waits for the control plane to tell them.
func (h *host) facts(ctx context.Context) (networkFacts, error) {
	path := h.dir("network.json")
	if facts, ok := loadFacts(path); ok {
		return facts, nil
	}
	facts := networkFacts{}
	var last error
	err := wait.PollUntilContextCancel(ctx, 100*time.Millisecond, true, func(ctx context.Context) (bool, error) {
		if last = h.askFacts(ctx, &facts); last != nil {
			h.log.Debug("the cluster's network is not known yet", "error", last)
		}
		return last == nil, nil
	})
	if err != nil {
		return facts, errors.Join(err, last)
	}
	if facts.PodCIDR, err = h.awaitPodCIDR(ctx); err != nil {
		return facts, err
	}
	if err := facts.save(path); err != nil {
		return facts, fmt.Errorf("keep the network's facts: %w", err)
	}
	return facts, nil
}

// askFacts reads what is the same for all hosts.
func (h *host) askFacts(ctx context.Context, facts *networkFacts) error {
	info, err := h.client.CoreV1().ConfigMaps(metav1.NamespaceSystem).Get(ctx, cluster.InfoConfigMap, metav1.GetOptions{})
	if err != nil {
		return err
	}
	secret, err := h.client.CoreV1().Secrets(metav1.NamespaceSystem).Get(ctx, cluster.GossipSecret, metav1.GetOptions{})
	if err != nil {
		return err
	}
	facts.Cluster, facts.GossipKey = cluster.FromConfigMap(info), secret.Data[cluster.GossipKey]
	return nil
}

// awaitPodCIDR waits until the control plane gives this host its addresses.
func (h *host) awaitPodCIDR(ctx context.Context) (netip.Prefix, error) {
	found := make(chan string, 1)
	tell := func(obj any) {
		if node, ok := obj.(*corev1.Node); ok && node.Name == h.options.nodeName && node.Spec.PodCIDR != "" {
			select {
			case found <- node.Spec.PodCIDR:
			default:
			}
		}
	}
	informer := h.informers.Core().V1().Nodes().Informer()
	handle, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: tell, UpdateFunc: func(_, now any) { tell(now) },
	})
	if err != nil {
		return netip.Prefix{}, err
	}
	defer func() { _ = informer.RemoveEventHandler(handle) }() // fails on foreign handles only
	select {
	case text := <-found:
		return netip.ParsePrefix(text)
	case <-ctx.Done():
		return netip.Prefix{}, ctx.Err()
	}
}
