package local

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	watchtools "k8s.io/client-go/tools/watch"
	"sigs.k8s.io/yaml"

	"lighter.dev/lighter/cmd/lighter/token"
)

// Lighter runs "lighter server" on the first hosts and "lighter agent" on the
// others. Their settings stand in the hosts' /etc/lighter, where the daemons
// look by themselves.
type Lighter struct {
	joinTokens map[Role]string
}

// tokenLife is how long a host may take to join.
const tokenLife = 24 * time.Hour

// look is how often we look at what gives no event: a file that another
// process will write, an API that will answer, a daemon that may have died.
const look = 25 * time.Millisecond

var _ Daemons = (*Lighter)(nil)

// serverData is the folder of a host's control plane.
func (c *Cluster) serverData(host string) string {
	return filepath.Join(c.HostDir(host), c.dataDir(), "server")
}

// NeedsServer implements Daemons: an agent that has joined could start alone, but
// has nothing to do then.
func (l *Lighter) NeedsServer(c *Cluster, host Host) bool {
	if host.Role == RoleAgent {
		return true
	}
	if host.Name == c.Servers()[0].Name {
		return false
	}
	// Where etcd's log lies from the moment on that a server is one.
	_, err := os.Stat(filepath.Join(c.serverData(host.Name), "etcd/data/member/wal"))
	return err != nil
}

// Prepare writes server.yaml or agent.yaml; either may hold a join token.
func (l *Lighter) Prepare(ctx context.Context, c *Cluster, host Host) (Command, error) {
	settings := map[string]any{}
	maps.Copy(settings, c.Settings)
	maps.Copy(settings, map[string]any{
		"node-name":   host.Name,
		"node-ip":     host.IP.String(),
		"cgroup-root": c.CgroupPath(host.Name),
	})
	path := filepath.Join("/etc/lighter", string(host.Role)+".yaml")
	if l.NeedsServer(c, host) {
		joinToken, err := l.token(ctx, c, host.Role, filepath.Join(c.HostDir(host.Name), path))
		if err != nil {
			return Command{}, err
		}
		config, _, err := c.client()
		if err != nil {
			return Command{}, err
		}
		key := map[Role]string{RoleAgent: "server", RoleServer: "join"}[host.Role]
		settings[key], settings["token"] = config.Host, joinToken
	}
	content, err := yaml.Marshal(settings)
	return Command{Argv: []string{binDir + "/lighter", string(host.Role)}, Files: map[string][]byte{path: content}}, err
}

// token makes one join token for all hosts of a role in this run. A host that has
// been configured before may start without a server: it has joined already, most
// likely, and needs no token that works.
func (l *Lighter) token(ctx context.Context, c *Cluster, role Role, path string) (string, error) {
	if made := l.joinTokens[role]; made != "" {
		return made, nil
	}
	var old struct{ Token string }
	if content, err := os.ReadFile(path); err == nil {
		_ = yaml.Unmarshal(content, &old)
	}
	limit := time.Minute
	if old.Token != "" {
		limit = time.Second
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	fresh, err := newToken(ctx, c, role == RoleServer)
	if err != nil && old.Token != "" {
		return old.Token, nil
	}
	if l.joinTokens == nil {
		l.joinTokens = map[Role]string{}
	}
	l.joinTokens[role] = fresh
	return fresh, err
}

func newToken(ctx context.Context, c *Cluster, forServers bool) (string, error) {
	config, client, err := c.client()
	if err != nil {
		return "", err
	}
	ca, err := token.CA(config)
	if err != nil {
		return "", err
	}
	for {
		fresh, err := token.Create(ctx, client, ca, token.Options{TTL: tokenLife, Description: "lighter local up", Server: forServers})
		// A server that has just started may still be making kube-system.
		if err == nil || !apierrors.IsNotFound(err) && !apierrors.IsForbidden(err) {
			return fresh, err
		}
		if err := pause(ctx); err != nil {
			return "", errors.Join(err, errors.New("namespace kube-system does not appear"))
		}
	}
}

// ServerReady waits until a server says that its API is ready, and for its admin
// kubeconfig, of which it makes one that works from the machine.
func (l *Lighter) ServerReady(ctx context.Context, c *Cluster, exited <-chan struct{}) error {
	for {
		err := c.RefreshKubeconfig(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-exited:
			return errors.New("lighter server ended")
		default:
		}
		if ctxErr := pause(ctx); ctxErr != nil {
			return fmt.Errorf("the API is not ready: %w (%w)", err, ctxErr)
		}
	}
}

func pause(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(look):
		return nil
	}
}

// AllReady watches the Node objects until every host's says Ready, and then asks the
// agents: what a Node says may be of the time before its daemon was started again. It
// gives up early when a daemon dies.
func (l *Lighter) AllReady(ctx context.Context, c *Cluster, report Report) error {
	_, client, err := c.client()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go c.guardDaemons(ctx, cancel)

	missing := map[string]bool{}
	for _, host := range c.Hosts {
		missing[host.Name] = true
	}
	nodes := cache.NewListWatchFromClient(client.CoreV1().RESTClient(), "nodes", "", fields.Everything())
	_, err = watchtools.UntilWithSync(ctx, nodes, &corev1.Node{}, nil, func(event watch.Event) (bool, error) {
		node, ok := event.Object.(*corev1.Node)
		if ok && missing[node.Name] && event.Type != watch.Deleted && ready(node) {
			if err := answers(ctx, client, node.Name); err != nil {
				return false, err
			}
			delete(missing, node.Name)
			report("%s is Ready", node.Name)
		}
		return len(missing) == 0, nil
	})
	if err == nil {
		return nil
	}
	var text strings.Builder
	for _, host := range c.Hosts {
		if missing[host.Name] {
			fmt.Fprintf(&text, "\n%s: not Ready; %s", host.Name, c.logTail(host.Name))
		}
	}
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	return fmt.Errorf("wait for the hosts: %w%s", err, text.String())
}

// answers waits until the agent of a node does.
func answers(ctx context.Context, client kubernetes.Interface, node string) error {
	for {
		err := client.CoreV1().RESTClient().Get().Resource("nodes").Name(node).SubResource("proxy").Suffix("healthz").Do(ctx).Error()
		if err == nil {
			return nil
		}
		if ctxErr := pause(ctx); ctxErr != nil {
			return fmt.Errorf("the agent of %s does not answer: %w (%w)", node, err, ctxErr)
		}
	}
}

// guardDaemons cancels the wait when a daemon dies: the log says why, waiting
// longer does not help.
func (c *Cluster) guardDaemons(ctx context.Context, cancel context.CancelCauseFunc) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(10 * look):
		}
		for _, host := range c.Hosts {
			if pids, err := c.daemonPIDs(host.Name); err == nil && len(pids) == 0 {
				cancel(fmt.Errorf("the daemon of %s ended", host.Name))
				return
			}
		}
	}
}

func ready(node *corev1.Node) bool {
	return slices.ContainsFunc(node.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	})
}
