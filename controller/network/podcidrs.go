package network

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"

	"lighter.dev/lighter/controller/reconcile"
)

// errFull means that every part of the pod network belongs to a node.
var errFull = errors.New("no free pod CIDR")

// PodCIDRs writes spec.podCIDR and spec.podCIDRs of Nodes that have none. It is the
// only writer of these fields; the API never lets them change once set. Nodes are
// the only record of what is taken, so there is nothing to lose in a crash: one
// worker decides from the informer's state plus what it wrote itself and has not
// seen come back.
type PodCIDRs struct {
	client   kubernetes.Interface
	nodes    corelisters.NodeLister
	recorder record.EventRecorder
	log      *slog.Logger
	runner   *reconcile.Runner

	cluster netip.Prefix
	bits    int                     // prefix length of a node's share
	next    uint32                  // where to look first; freed shares rest as long as possible
	written map[string]netip.Prefix // by node; used by the single worker only
}

// NewPodCIDRs registers the reconciler. It deals out shares of prefix length bits
// (24: 254 pods) from the IPv4 prefix cluster.
func NewPodCIDRs(d Deps, cluster netip.Prefix, bits int) (*PodCIDRs, error) {
	if !cluster.Addr().Is4() || bits < cluster.Bits() || bits > 30 {
		return nil, fmt.Errorf("pod network %s cannot be split into /%d: need an IPv4 prefix no longer than that", cluster, bits)
	}
	nodes := d.Informers.Core().V1().Nodes()
	p := &PodCIDRs{
		client: d.Client, nodes: nodes.Lister(), recorder: d.Recorder, log: d.Log,
		cluster: cluster.Masked(), bits: bits, written: map[string]netip.Prefix{},
	}
	p.runner = reconcile.New("pod-cidr", p.sync, d.Log)
	registration, err := nodes.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    p.runner.EnqueueObject,
		UpdateFunc: func(_, obj any) { p.enqueueUnserved(obj) },
		DeleteFunc: func(obj any) {
			p.runner.EnqueueObject(obj)
			p.enqueueWaiting()
		},
	})
	if err != nil {
		return nil, fmt.Errorf("watch nodes: %w", err)
	}
	p.runner.WaitFor(registration.HasSynced)
	return p, nil
}

// Run deals out shares until ctx ends. One worker: the decision must be serial.
func (p *PodCIDRs) Run(ctx context.Context) error { return p.runner.Run(ctx, 1) }

// enqueueUnserved keeps heartbeats of served nodes out of the queue.
func (p *PodCIDRs) enqueueUnserved(obj any) {
	if node, ok := obj.(*corev1.Node); ok && len(node.Spec.PodCIDRs) == 0 && node.Spec.PodCIDR == "" {
		p.runner.Enqueue(node.Name)
	}
}

// enqueueWaiting tries again for all nodes that found the network full.
func (p *PodCIDRs) enqueueWaiting() {
	nodes, err := p.nodes.List(labels.Everything())
	if err != nil {
		return
	}
	for _, node := range nodes {
		p.enqueueUnserved(node)
	}
}

func (p *PodCIDRs) sync(ctx context.Context, name string) error {
	node, err := p.nodes.Get(name)
	if apierrors.IsNotFound(err) {
		delete(p.written, name)
		return nil
	}
	if err != nil {
		return fmt.Errorf("read node: %w", err)
	}
	if len(cidrsOf(node)) > 0 {
		p.warnOverlap(node)
		return nil
	}
	share, err := p.pick(name)
	if errors.Is(err, errFull) {
		p.recorder.Eventf(node, corev1.EventTypeWarning, "CIDRNotAvailable",
			"All /%d shares of the pod network %s are taken; delete Nodes that are gone for good", p.bits, p.cluster)
		p.log.Error("no pod CIDR left for node, waiting for a node to be deleted", "node", name, "network", p.cluster)
		return nil
	}
	if err != nil {
		return err
	}
	if err := p.write(ctx, node, share); err != nil {
		return err
	}
	p.log.Info("node got its pod CIDR", "node", name, "cidr", share)
	return nil
}

// write fills the fields, if the node is still the one we looked at.
func (p *PodCIDRs) write(ctx context.Context, node *corev1.Node, share netip.Prefix) error {
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": node.UID},
		"spec":     map[string]any{"podCIDR": share.String(), "podCIDRs": []string{share.String()}},
	})
	if err != nil {
		return fmt.Errorf("write pod CIDR: %w", err)
	}
	p.written[node.Name] = share // before the write: its result may be unknown
	_, err = p.client.CoreV1().Nodes().Patch(ctx, node.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{})
	if apierrors.IsInvalid(err) || apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		delete(p.written, node.Name) // surely not written: it has another one, or is another node
	}
	if err != nil {
		return fmt.Errorf("write pod CIDR %s to node %s: %w", share, node.Name, err)
	}
	return nil
}

// pick chooses a share that no node has. A share written before goes to the same node again.
func (p *PodCIDRs) pick(name string) (netip.Prefix, error) {
	if share, ok := p.written[name]; ok {
		return share, nil
	}
	taken, err := p.taken()
	if err != nil {
		return netip.Prefix{}, err
	}
	total := uint32(1) << (p.bits - p.cluster.Bits())
	for i := range total {
		index := (p.next + i) % total
		share := p.share(index)
		if !slices.ContainsFunc(taken, share.Overlaps) {
			p.next = index + 1
			return share, nil
		}
	}
	return netip.Prefix{}, errFull
}

// share is the n-th part of the pod network.
func (p *PodCIDRs) share(n uint32) netip.Prefix {
	base := p.cluster.Addr().As4()
	var addr [4]byte
	binary.BigEndian.PutUint32(addr[:], binary.BigEndian.Uint32(base[:])+n<<(32-p.bits))
	return netip.PrefixFrom(netip.AddrFrom4(addr), p.bits)
}

// taken are the shares of all nodes, as seen or as written.
func (p *PodCIDRs) taken() ([]netip.Prefix, error) {
	nodes, err := p.nodes.List(labels.Everything())
	if err != nil {
		return nil, fmt.Errorf("list nodes: %w", err)
	}
	var all []netip.Prefix
	for _, node := range nodes {
		all = append(all, cidrsOf(node)...)
	}
	for _, share := range p.written {
		all = append(all, share)
	}
	return all, nil
}

// warnOverlap tells about two nodes whose shares overlap: somebody set one by hand,
// and pods of the two will get each other's traffic.
func (p *PodCIDRs) warnOverlap(node *corev1.Node) {
	nodes, err := p.nodes.List(labels.Everything())
	if err != nil {
		return
	}
	for _, own := range cidrsOf(node) {
		for _, other := range nodes {
			if other.Name != node.Name && slices.ContainsFunc(cidrsOf(other), own.Overlaps) {
				p.recorder.Eventf(node, corev1.EventTypeWarning, "CIDROverlap",
					"Pod CIDR %s overlaps that of node %s; delete one of the two Nodes and let it register again", own, other.Name)
			}
		}
	}
}

func cidrsOf(node *corev1.Node) []netip.Prefix {
	texts := node.Spec.PodCIDRs
	if len(texts) == 0 && node.Spec.PodCIDR != "" {
		texts = []string{node.Spec.PodCIDR}
	}
	var all []netip.Prefix
	for _, text := range texts {
		if prefix, err := netip.ParsePrefix(text); err == nil {
			all = append(all, prefix.Masked())
		}
	}
	return all
}
