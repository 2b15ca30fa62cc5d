package servers

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	coreinformers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"

	"lighter.dev/lighter/controller/reconcile"
	"lighter.dev/lighter/controller/store"
)

const (
	// ControlPlaneLabel marks the Nodes of servers. kubectl shows it as their role,
	// and charts select by it. An agent may not give it to itself.
	ControlPlaneLabel = "node-role.kubernetes.io/control-plane"
	// rolesPeriod is how often the servers are looked at, which no watch tells of.
	rolesPeriod = 10 * time.Second
	// rolesKey is the only one: all nodes are seen to in one pass.
	rolesKey = "roles"
)

// Roles writes ControlPlaneLabel on Nodes. A server's agent has the server's name.
type Roles struct {
	client  kubernetes.Interface
	nodes   corelisters.NodeLister
	servers func(context.Context) (map[string]store.Server, error)
	runner  *reconcile.Runner
}

// NewRoles registers the reconciler; servers lists the cluster's, by name.
func NewRoles(client kubernetes.Interface, nodes coreinformers.NodeInformer, servers func(context.Context) (map[string]store.Server, error), log *slog.Logger) (*Roles, error) {
	r := &Roles{client: client, nodes: nodes.Lister(), servers: servers}
	r.runner = reconcile.New("node-roles", r.sync, log)
	registration, err := nodes.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { r.runner.Enqueue(rolesKey) },
	})
	if err != nil {
		return nil, fmt.Errorf("watch nodes: %w", err)
	}
	r.runner.WaitFor(registration.HasSynced)
	return r, nil
}

// Run keeps the labels until ctx ends.
func (r *Roles) Run(ctx context.Context) error { return r.runner.Run(ctx, 1) }

func (r *Roles) sync(ctx context.Context, key string) error {
	defer r.runner.EnqueueAfter(key, rolesPeriod)
	known, err := r.servers(ctx)
	if err != nil {
		return err
	}
	nodes, err := r.nodes.List(labels.Everything())
	if err != nil {
		return fmt.Errorf("list nodes: %w", err)
	}
	for _, node := range nodes {
		_, serves := known[node.Name]
		patch := rolePatch(node, serves)
		if patch == "" {
			continue
		}
		_, err := r.client.CoreV1().Nodes().Patch(ctx, node.Name, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("label node %s: %w", node.Name, err)
		}
	}
	return nil
}

// rolePatch is the change (RFC 7386) that a Node needs, "" if none.
func rolePatch(node *corev1.Node, serves bool) string {
	_, labelled := node.Labels[ControlPlaneLabel]
	switch {
	case serves && !labelled:
		return fmt.Sprintf(`{"metadata":{"labels":{%q:""}}}`, ControlPlaneLabel)
	case !serves && labelled:
		return fmt.Sprintf(`{"metadata":{"labels":{%q:null}}}`, ControlPlaneLabel)
	}
	return ""
}
