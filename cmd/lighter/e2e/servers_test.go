package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// trio is a cluster of its own, of three hosts that all are servers.
type trio struct {
	name, kubeconfig string
	port             int // of the guestbook
}

func newTrio(t *testing.T) *trio {
	t.Helper()
	needCluster(t)
	c := &trio{name: clusterName + "-ha", port: 30090}
	c.local(t, "down") // a run that was killed may have left one
	t.Cleanup(func() {
		if t.Failed() {
			out, _ := c.try(20*time.Second, "server", "ls")
			t.Logf("lighter server ls:\n%s", out)
		}
		if os.Getenv("LIGHTER_E2E_KEEP") == "" {
			c.local(t, "down")
		}
	})
	start := time.Now()
	c.local(t, "up", "--hosts", "3", "--servers", "3")
	t.Logf("three servers are Ready after %.1f s", time.Since(start).Seconds())
	c.kubeconfig = strings.TrimSpace(c.local(t, "kubeconfig", "--path"))
	return c
}

// try runs lighter against this cluster.
func (c *trio) try(timeout time.Duration, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, shared.binary, args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.kubeconfig)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (c *trio) lighter(t *testing.T, args ...string) string {
	t.Helper()
	out, err := c.try(2*time.Minute, args...)
	if err != nil {
		t.Fatalf("lighter %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// local runs "lighter local" and returns what it prints to stdout.
func (c *trio) local(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command(shared.binary, append([]string{"local", "--name", c.name}, args...)...)
	var out, problems bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problems
	if err := cmd.Run(); err != nil {
		t.Fatalf("lighter local %s: %v\n%s%s", strings.Join(args, " "), err, out.String(), problems.String())
	}
	return out.String()
}

func (c *trio) client(t *testing.T) kubernetes.Interface {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", c.kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// servers are the lines of "lighter server ls" by host, blanks squeezed.
func (c *trio) servers() (map[string]string, error) {
	out, err := c.try(30*time.Second, "server", "ls")
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, out)
	}
	lines := map[string]string{}
	for line := range strings.Lines(out) {
		fields := strings.Fields(line)
		if len(fields) > 1 && strings.HasPrefix(fields[0], "host-") {
			lines[fields[0]] = strings.Join(fields[2:], " ")
		}
	}
	return lines, nil
}

// leader waits until one of the servers leads, and exactly one.
func (c *trio) leader(t *testing.T, timeout time.Duration, not ...string) string {
	t.Helper()
	var found string
	eventually(t, timeout, "a server leads", func() error {
		servers, err := c.servers()
		if err != nil {
			return err
		}
		var leaders []string
		for name, line := range servers {
			if line == "voter yes yes" && !slices.Contains(not, name) {
				leaders = append(leaders, name)
			}
		}
		if len(leaders) != 1 {
			return fmt.Errorf("%v lead: %v", leaders, servers)
		}
		found = leaders[0]
		return nil
	})
	return found
}

// healthy waits until every server is.
func (c *trio) healthy(t *testing.T, timeout time.Duration) {
	t.Helper()
	eventually(t, timeout, "three servers are healthy", func() error {
		servers, err := c.servers()
		if err != nil {
			return err
		}
		for _, host := range everyHost {
			if !strings.HasPrefix(servers[host], "voter") || !strings.HasSuffix(servers[host], "yes") {
				return fmt.Errorf("%s: %s", host, servers[host])
			}
		}
		return nil
	})
}

func (c *trio) nodesReady(t *testing.T, timeout time.Duration) {
	t.Helper()
	eventually(t, timeout, "three nodes are Ready", func() error {
		nodes, err := c.client(t).CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})
		if err != nil {
			return err
		}
		if len(nodes.Items) != 3 {
			return fmt.Errorf("%d nodes", len(nodes.Items))
		}
		for _, node := range nodes.Items {
			if !slices.ContainsFunc(node.Status.Conditions, func(condition corev1.NodeCondition) bool {
				return condition.Type == corev1.NodeReady && condition.Status == corev1.ConditionTrue
			}) {
				return fmt.Errorf("%s: %v", node.Name, node.Status.Conditions)
			}
			if err := agentAnswers(c.client(t), node.Name); err != nil {
				return err
			}
		}
		return nil
	})
}

// pods are the front ends that are Ready on hosts other than one, with the times
// at which their containers were started.
func (c *trio) pods(t *testing.T, not string) map[string]life {
	t.Helper()
	pods, err := c.client(t).CoreV1().Pods("default").List(t.Context(), metav1.ListOptions{LabelSelector: "app=frontend"})
	if err != nil {
		return nil
	}
	running := map[string]life{}
	for _, pod := range pods.Items {
		for _, status := range pod.Status.ContainerStatuses {
			if status.Ready && pod.Spec.NodeName != not && pod.DeletionTimestamp == nil {
				running[pod.Name] = life{id: status.ContainerID, restarts: status.RestartCount}
			}
		}
	}
	return running
}

func (c *trio) frontends(t *testing.T, want int, not string, timeout time.Duration) map[string]life {
	t.Helper()
	var running map[string]life
	eventually(t, timeout, fmt.Sprintf("%d front ends are Ready", want), func() error {
		if running = c.pods(t, not); len(running) != want {
			return fmt.Errorf("%d are", len(running))
		}
		return nil
	})
	return running
}

func (c *trio) served(t *testing.T, not string) {
	t.Helper()
	eventually(t, 20*time.Second, "the page is served through every host that is left", func() error {
		for _, line := range strings.Split(c.local(t, "exec", c.other(not), "--", "cat", "/etc/hosts"), "\n") {
			fields := strings.Fields(line)
			if len(fields) != 2 || !strings.HasPrefix(fields[1], "host-") || fields[1] == not {
				continue
			}
			if _, err := get(fmt.Sprintf("http://%s:%d/healthz", fields[0], c.port)); err != nil {
				return err
			}
		}
		return nil
	})
}

// other is a host that is not the one.
func (c *trio) other(host string) string {
	if host == "host-1" {
		return "host-2"
	}
	return "host-1"
}

// guestbook deploys the guestbook with three front ends.
func (c *trio) guestbook(t *testing.T) {
	t.Helper()
	g := guestbook{dir: filepath.Join(t.TempDir(), "guestbook"), port: c.port}
	if err := os.CopyFS(g.dir, os.DirFS("../../../manifests/guestbook")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"frontend.yaml", "store.yaml"} {
		g.edit(t, name, "\n    spec:\n", "\n    spec:\n      terminationGracePeriodSeconds: 2\n")
	}
	g.edit(t, "frontend.yaml", "nodePort: 30080", fmt.Sprint("nodePort: ", c.port))
	c.lighter(t, "apply", "-f", g.dir, "--timeout", "180s")
}

// TestServers breaks the servers of a cluster of three in turn. It is one test
// because each part begins with what the last one left whole.
func TestServers(t *testing.T) {
	c := newTrio(t)
	c.guestbook(t)
	c.healthy(t, 20*time.Second)

	t.Run("power loss of the leader", func(t *testing.T) {
		leader := c.leader(t, 20*time.Second)
		c.local(t, "kill", leader)
		start := time.Now()
		c.local(t, "kubeconfig") // names a server that answers
		next := c.leader(t, 20*time.Second, leader)
		t.Logf("%s leads %.1f s after the loss of %s", next, time.Since(start).Seconds(), leader)
		c.lighter(t, "scale", "deployment/frontend", "--replicas", "4")
		c.frontends(t, 4, leader, 30*time.Second)
		t.Logf("four front ends run elsewhere after %.1f s", time.Since(start).Seconds())
		c.served(t, leader)
		if out, err := c.try(time.Minute, "server", "remove", next, "--server", "https://127.0.0.1:1"); err == nil {
			t.Errorf("a server that is not there removed one: %s", out)
		}
		c.local(t, "start", leader)
		c.healthy(t, 20*time.Second)
		c.nodesReady(t, 20*time.Second)
	})

	t.Run("SIGKILL of all", func(t *testing.T) {
		before := c.frontends(t, 4, "", 20*time.Second)
		c.local(t, append([]string{"kill", "--daemon"}, everyHost...)...)
		c.local(t, append([]string{"start"}, everyHost...)...)
		c.healthy(t, 30*time.Second)
		c.leader(t, 20*time.Second)
		c.nodesReady(t, 20*time.Second)
		same(t, before, c.frontends(t, 4, "", 20*time.Second))
		c.served(t, "")
	})

	t.Run("a leader that is cut off", func(t *testing.T) {
		leader := c.leader(t, 20*time.Second)
		log := len(c.local(t, "logs", leader))
		c.local(t, "cut", leader)
		c.local(t, "kubeconfig")
		next := c.leader(t, 20*time.Second, leader)
		c.lighter(t, "scale", "deployment/frontend", "--replicas", "3")
		eventually(t, 20*time.Second, leader+" has stopped leading", func() error {
			if said := c.local(t, "logs", leader)[log:]; !strings.Contains(said, "does not lead any more") || strings.Contains(said, "this server leads") {
				return errors.New(said)
			}
			return nil
		})
		// Its own API cannot read, let alone write.
		out := c.local(t, "exec", leader, "--", "sh", "-c", "timeout 20 /run/bin/lighter --kubeconfig /var/lib/lighter/server/admin.kubeconfig scale deployment/frontend --replicas 9 2>&1 || echo refused")
		contains(t, "the API of a server that is cut off", out, "refused")
		c.local(t, "heal")
		c.healthy(t, 20*time.Second)
		if now := c.leader(t, 20*time.Second); now == leader {
			t.Errorf("%s leads after the cut is mended, not %s", now, next)
		}
		c.nodesReady(t, 20*time.Second)
		c.frontends(t, 3, "", 30*time.Second)
	})

	t.Run("a server that is taken out", func(t *testing.T) {
		gone := "host-3"
		if c.leader(t, 20*time.Second) == gone {
			gone = "host-2"
		}
		c.local(t, "kill", gone)
		c.local(t, "kubeconfig")
		c.lighter(t, "server", "remove", gone)
		if servers, err := c.servers(); err != nil || len(servers) != 2 || servers[gone] != "" {
			t.Errorf("servers without %s: %v, %v", gone, servers, err)
		}
		log := len(c.local(t, "logs", gone))
		c.local(t, "start", gone)
		eventually(t, 20*time.Second, gone+" is told why it does not start", func() error {
			if said := c.local(t, "logs", gone)[log:]; !strings.Contains(said, "'lighter server remove' was run") {
				return errors.New(said)
			}
			return nil
		})
		// A new machine of that name takes its place.
		c.lighter(t, "delete", "node", gone)
		eventually(t, 20*time.Second, "the lease goes with its node", func() error {
			_, err := c.client(t).CoordinationV1().Leases(corev1.NamespaceNodeLease).Get(t.Context(), gone, metav1.GetOptions{})
			if err == nil {
				return errors.New("it is still there")
			}
			if apierrors.IsNotFound(err) {
				return nil
			}
			return err
		})
		c.local(t, "exec", gone, "--", "rm", "-r", "/var/lib/lighter/server", "/var/lib/lighter/agent")
		c.local(t, "start", gone)
		c.healthy(t, 30*time.Second)
		c.nodesReady(t, 20*time.Second)
	})

	t.Run("who may not join", func(t *testing.T) {
		c.refusals(t)
	})
}

// refusals starts servers on host-3, beside the one that runs there, that have to
// be refused without a trace.
func (c *trio) refusals(t *testing.T) {
	server := "https://" + strings.TrimSpace(regexp.MustCompile(`(?m)^(\S+)\s+host-1$`).FindStringSubmatch(c.local(t, "exec", "host-1", "--", "cat", "/etc/hosts"))[1]) + ":6443"
	forAgents := strings.TrimSpace(c.lighter(t, "token", "create"))
	forServers := strings.TrimSpace(c.lighter(t, "token", "create", "--server=true"))
	for _, test := range []struct {
		name, node, token string
		more, wants       []string
	}{
		{"agent", "joiner", forAgents, nil, []string{"is one for agents", "lighter token create --server"}},
		{"none", "joiner", "", nil, []string{"--token", "lighter token create --server"}},
		{"foreign", "joiner", regexp.MustCompile("^LT1.{8}").ReplaceAllString(forServers, "LT1deadbeef"), nil, []string{"deadbeef", "another cluster"}},
		{"twin", "host-2", forServers, nil, []string{"there is a server of that name already: host-2", "--node-name"}},
		{"ranges", "joiner", forServers, []string{"--cluster-cidr", "10.99.0.0/16"}, []string{"--cluster-cidr 10.42.0.0/16"}},
		{"port", "joiner", forServers, []string{"--etcd-peer-port", "2380"}, []string{"address already in use", "--etcd-peer-port"}},
	} {
		dir := "/var/tmp/joiner-" + test.name
		args := []string{
			"local", "--name", c.name, "exec", "host-3", "--", "timeout", "90", "/run/bin/lighter", "server", "--config", "/dev/null", "--no-agent",
			"--join", server, "--node-name", test.node, "--data-dir", dir, "--port", "7443", "--token", test.token,
		}
		if test.more == nil || test.more[0] != "--etcd-peer-port" {
			args = append(args, "--etcd-peer-port", "7380")
		}
		out, err := c.try(3*time.Minute, append(args, test.more...)...)
		if err == nil {
			t.Errorf("%s: joined", test.name)
		}
		contains(t, test.name, out, test.wants...)
	}
	servers, err := c.servers()
	if err != nil || len(servers) != 3 {
		t.Errorf("servers after refusals: %v, %v", servers, err)
	}
	// Whoever is a server already may be told to join again.
	out, err := c.try(time.Minute, "server", "remove", "host-9")
	if err == nil {
		t.Error("host-9 was removed")
	}
	contains(t, "removing nobody", out, "no such server")
}
