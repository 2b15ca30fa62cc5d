// Package node keeps this host's Node object and its Lease.
//
// The Node is registered when the agent starts; its status is written when
// something in it changes, and every few minutes. The Lease (in kube-node-lease)
// is renewed every second: it is how the control plane notices quickly and
// cheaply that a host is lost.
//
// The Lease also protects the name. Its holderIdentity contains an ID that the
// agent made up once and keeps in its data directory; a second agent that was
// given the same node name finds a foreign holder that renews it, and refuses to
// start. It goes with the Node when that is deleted.
//
//	node.go      registration and the loops
//	lease.go     the Lease
//	status.go    conditions, capacity, images: the status as a whole
//	host.go      what the kernel says
package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// ErrNameTaken: another agent uses this node's name.
var ErrNameTaken = errors.New("another agent uses this node name")

// Config is what a Node needs.
type Config struct {
	Client kubernetes.Interface
	// Name is the node's name, Hostname the host's.
	Name, Hostname string
	// IPs are the node's addresses, the primary one first.
	IPs []netip.Addr
	// Port is where the agent's HTTPS endpoint listens (10250).
	Port int32
	// Version of Lighter, as in "v0.1.0".
	Version string
	// Labels and Taints are set when the node is registered; Labels and
	// Annotations are also kept up to date later.
	Labels, Annotations map[string]string
	Taints              []corev1.Taint
	// DataDir is where images and volumes are: its file system is the node's
	// ephemeral storage. The agent's identity is kept there too.
	DataDir string
	// Reserved is held back from capacity for the host itself.
	Reserved corev1.ResourceList
	// MaxPods is the node's capacity of pods; 0 means 110.
	MaxPods int64
	// Images lists what this node holds (at most some of it is reported), and
	// ImagesChanged returns a channel that closes at the next change. Both may be nil.
	Images        func(ctx context.Context) ([]corev1.ContainerImage, error)
	ImagesChanged func() <-chan struct{}
	// NetworkReady says why pods cannot be connected yet; nil when they can.
	NetworkReady func() error
	// LeaseClient renews the Lease; nil means Client. A connection of its own lets
	// DropLease, if not nil, give it up when a renewal gets no answer, so that the
	// next one does not wait for TCP. Back, if not nil, is called when the API
	// answers again after a silence of at least LeaseDuration/2.
	LeaseClient kubernetes.Interface
	DropLease   func()
	Back        func()
	// LeaseInterval is the pause between renewals (1 s), LeaseDuration how long
	// a renewal counts (5 s), StatusInterval how often the status is written
	// though it did not change (5 min).
	LeaseInterval, LeaseDuration, StatusInterval time.Duration
	Log                                          *slog.Logger
}

// Node is this host in the API.
type Node struct {
	cfg      Config
	identity string
	host     hostFacts
	ready    chan struct{} // closed when registered
	nudge    chan struct{}
	owner    atomic.Pointer[metav1.OwnerReference] // of the Lease; nil: none

	mu          sync.Mutex
	annotations map[string]string
	written     map[string]string // annotations as written last
	images      []corev1.ContainerImage
}

// New reads the host's facts and the agent's identity.
func New(cfg Config) (*Node, error) {
	setDefaults(&cfg)
	identity, err := loadIdentity(cfg.DataDir)
	if err != nil {
		return nil, err
	}
	facts, err := readHost(cfg.DataDir)
	if err != nil {
		return nil, fmt.Errorf("read facts about this host: %w", err)
	}
	return &Node{
		cfg: cfg, identity: identity, host: facts,
		ready: make(chan struct{}), nudge: make(chan struct{}, 1),
		annotations: maps.Clone(cfg.Annotations),
	}, nil
}

func setDefaults(cfg *Config) {
	if cfg.MaxPods == 0 {
		cfg.MaxPods = 110
	}
	if cfg.LeaseInterval == 0 {
		cfg.LeaseInterval = time.Second
	}
	if cfg.LeaseDuration == 0 {
		cfg.LeaseDuration = 5 * time.Second
	}
	if cfg.StatusInterval == 0 {
		cfg.StatusInterval = 5 * time.Minute
	}
	if cfg.Hostname == "" {
		cfg.Hostname = cfg.Name
	}
	if cfg.LeaseClient == nil {
		cfg.LeaseClient = cfg.Client
	}
	if cfg.DropLease == nil {
		cfg.DropLease = func() {}
	}
	if cfg.Back == nil {
		cfg.Back = func() {}
	}
	if cfg.NetworkReady == nil {
		cfg.NetworkReady = func() error { return nil }
	}
	if cfg.ImagesChanged == nil {
		cfg.ImagesChanged = func() <-chan struct{} { return nil }
	}
}

// Registered is closed as soon as the Node object exists.
func (n *Node) Registered() <-chan struct{} { return n.ready }

// Trigger has the status written now if it changed, for example because the
// network became ready.
func (n *Node) Trigger() {
	select {
	case n.nudge <- struct{}{}:
	default:
	}
}

// Annotate sets annotations of the Node that are known late (the VTEP's MAC).
func (n *Node) Annotate(annotations map[string]string) {
	n.mu.Lock()
	if n.annotations == nil {
		n.annotations = map[string]string{}
	}
	maps.Copy(n.annotations, annotations)
	n.mu.Unlock()
	n.Trigger()
}

// Run registers the node and keeps it alive until ctx ends. It returns
// ErrNameTaken when another agent has the name, at start or later; all other
// failures are retried.
func (n *Node) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if err := n.untilDone(ctx, "claim the node's lease", n.claim); err != nil {
		return err
	}
	if err := n.untilDone(ctx, "register node", n.register); err != nil {
		return err
	}
	close(n.ready)
	n.cfg.Log.Info("Node is registered", "node", n.cfg.Name, "identity", n.identity)
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := n.keepLease(ctx); err != nil {
			cancel(err)
		}
	})
	wg.Go(func() { n.keepStatus(ctx) })
	wg.Wait()
	if err := context.Cause(ctx); errors.Is(err, ErrNameTaken) {
		return err
	}
	return nil
}

const maxRetry = 5 * time.Second

// untilDone retries f until it succeeds, ctx ends or the name is taken.
func (n *Node) untilDone(ctx context.Context, what string, f func(context.Context) error) error {
	retry := 50 * time.Millisecond
	for {
		err := f(ctx)
		if err == nil || errors.Is(err, ErrNameTaken) {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		n.cfg.Log.Warn("Will retry", "what", what, "err", err, "in", retry)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(retry):
		}
		retry = min(2*retry, maxRetry)
	}
}

// register makes the Node object, or brings the one of an earlier run up to date.
func (n *Node) register(ctx context.Context) error {
	nodes := n.cfg.Client.CoreV1().Nodes()
	node := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: n.cfg.Name, Labels: n.labels(), Annotations: n.currentAnnotations()},
		Spec:       corev1.NodeSpec{Taints: n.cfg.Taints},
	}
	node.Status = *n.status(ctx, nil, time.Now())
	made, err := nodes.Create(ctx, node, metav1.CreateOptions{})
	if err == nil {
		n.mu.Lock()
		n.written = node.Annotations
		n.mu.Unlock()
		n.owner.Store(ownerOf(made))
		return nil
	}
	if !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("create node %s: %w", n.cfg.Name, err)
	}
	if err := n.patchMeta(ctx); err != nil {
		return err
	}
	have, err := n.writeStatus(ctx, time.Now())
	if err != nil {
		return err
	}
	n.owner.Store(ownerOf(have))
	return nil
}

// labels are those that every node has, and the configured ones.
func (n *Node) labels() map[string]string {
	labels := map[string]string{
		corev1.LabelHostname:   n.cfg.Name,
		corev1.LabelOSStable:   n.host.info.OperatingSystem,
		corev1.LabelArchStable: n.host.info.Architecture,
	}
	maps.Copy(labels, n.cfg.Labels)
	return labels
}

func (n *Node) currentAnnotations() map[string]string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return maps.Clone(n.annotations)
}
