package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// onHost runs a lighter daemon on a host, that has to refuse to work within
// 90 s, and returns what it says last.
func onHost(t *testing.T, host string, args ...string) string {
	t.Helper()
	argv := append([]string{"local", "--name", clusterName, "exec", host, "--", "timeout", "90", "/run/bin/lighter"}, args...)
	out, err := output(argv...)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() == 124 || exit.ExitCode() < 0 {
		t.Fatalf("lighter %s: %v, want it to give up\n%s", strings.Join(args, " "), err, out)
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, "lighter: ") {
			return strings.Join(lines[i:], "\n")
		}
	}
	t.Errorf("lighter %s: no message for people:\n%s", strings.Join(args, " "), out)
	return out
}

// TestRefusedJoins: an agent that may not join says why and ends, and leaves
// nothing in the cluster.
func TestRefusedJoins(t *testing.T) {
	t.Parallel()
	needCluster(t)
	server := "https://" + nodeIPs(t)[0] + ":6443"
	token := strings.TrimSpace(lighter(t, "token", "create", "--ttl", "10m"))
	expired := strings.TrimSpace(lighter(t, "token", "create", "--ttl", "1s"))
	deleted := strings.TrimSpace(lighter(t, "token", "create"))
	lighter(t, "token", "delete", deleted)
	last := "0000"
	if strings.HasSuffix(token, last) {
		last = "1111"
	}
	id := regexp.MustCompile(`::(\w+)\.`).FindStringSubmatch(expired)[1]
	eventually(t, 20*time.Second, "the token has expired", func() error {
		for line := range strings.Lines(lighter(t, "token", "list")) {
			if strings.Contains(line, id) && !strings.Contains(line, "expired") {
				return errors.New(line)
			}
		}
		return nil
	})
	for _, test := range []struct {
		name, node, server, token string
		wants                     []string
	}{
		{"no token", "joiner", server, "", []string{"--token", "lighter token create"}},
		{"not a token", "joiner", server, "swordfish", []string{"not a join token", "LT1"}},
		{"wrong secret", "joiner", server, token[:len(token)-4] + last, []string{"does not accept join token", "lighter token create"}},
		{"expired", "joiner", server, expired, []string{"does not accept join token", "expired"}},
		{"deleted", "joiner", server, deleted, []string{"does not accept join token", "deleted"}},
		{"another cluster's CA", "joiner", server, regexp.MustCompile("^LT1.{8}").ReplaceAllString(token, "LT1deadbeef"), []string{"deadbeef", "another cluster"}},
		{"name of a living node", "host-2", server, token, []string{"host-2", "alive", "--node-name"}},
		{"no https", "joiner", "http://10.89.0.1", token, []string{"--server", "https://HOST:6443"}},
		{"bad name", "No Such Name", server, token, []string{"--node-name", "lowercase"}},
		{"bad taint", "joiner", server, token, []string{"--node-taints", "NoSchedule"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			dir := "/var/tmp/joiner-" + strings.ReplaceAll(test.name, " ", "-")
			args := []string{"agent", "--config", "/dev/null", "--server", test.server, "--node-name", test.node, "--data-dir", dir, "--run-dir", dir + "/run", "--agent-port", "10399"}
			if test.token != "" {
				args = append(args, "--token", test.token)
			}
			if test.name == "bad taint" {
				args = append(args, "--node-taints", "a=b:Sometimes")
			}
			contains(t, "the agent", onHost(t, "host-3", args...), test.wants...)
		})
	}
	t.Cleanup(func() {
		if out := lighter(t, "get", "nodes", "-o", "name"); strings.Contains(out, "joiner") {
			t.Errorf("a refused agent has left a Node:\n%s", out)
		}
		nodesReady(t, 20*time.Second, everyHost...)
	})
}

// TestForeignData: the folder of one cluster is not used for another.
func TestForeignData(t *testing.T) {
	t.Parallel()
	needCluster(t)
	const dir = "/var/tmp/second"
	args := []string{"server", "--config", "/dev/null", "--no-agent", "--node-name", "second", "--port", "7443", "--data-dir", dir}
	script := fmt.Sprintf("mkdir -p %s && (/run/bin/lighter %s > %s/log 2>&1 & echo $! > %s/pid)", dir, strings.Join(args, " "), dir, dir)
	hostExec(t, "host-3", "sh", "-c", script)
	kill := func() { // once: its pid may be another's afterwards
		hostExec(t, "host-3", "sh", "-c", fmt.Sprintf("cd %s && test -e pid || exit 0; kill $(cat pid); while kill -0 $(cat pid) 2>/dev/null; do busybox usleep 50000; done; rm pid", dir))
	}
	t.Cleanup(func() {
		kill()
		hostExec(t, "host-3", "rm", "-rf", dir, "/var/tmp/foreign")
	})
	var token string
	eventually(t, 20*time.Second, "the second server makes a token", func() error {
		out, err := output("local", "--name", clusterName, "exec", "host-3", "--", "/run/bin/lighter", "token", "create", "--kubeconfig", dir+"/server/admin.kubeconfig")
		token = regexp.MustCompile(`(?m)^LT1\S+$`).FindString(out)
		if err != nil || token == "" {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})

	t.Run("agent", func(t *testing.T) {
		state, err := output("local", "--name", clusterName, "kubeconfig", "--path")
		if err != nil {
			t.Fatal(err)
		}
		hosts := filepath.Join(filepath.Dir(strings.TrimSpace(state)), "hosts")
		if err := os.CopyFS(filepath.Join(hosts, "host-3/var/tmp/foreign/agent/identity"), os.DirFS(filepath.Join(hosts, "host-2/var/lib/lighter/agent/identity"))); err != nil {
			t.Fatal(err)
		}
		agent := []string{"agent", "--config", "/dev/null", "--data-dir", "/var/tmp/foreign", "--run-dir", "/var/tmp/foreign/run", "--agent-port", "10398"}
		// Of the first cluster's host-2, used for the second cluster.
		out := onHost(t, "host-3", append(agent, "--server", "https://127.0.0.1:7443", "--node-name", "host-2", "--token", token)...)
		contains(t, "another cluster's folder", out, "/var/tmp/foreign", "another cluster")
		// The same, used for another host of the first.
		own := strings.TrimSpace(lighter(t, "token", "create", "--ttl", "10m"))
		out = onHost(t, "host-3", append(agent, "--server", "https://"+nodeIPs(t)[0]+":6443", "--node-name", "other", "--token", own)...)
		contains(t, "another host's folder", out, "host-2", "/var/tmp/foreign")
	})
	t.Run("port in use", func(t *testing.T) {
		out := onHost(t, "host-3", append(args[:len(args)-1:len(args)-1], dir+"-2")...)
		contains(t, "the second server on a port", out, "7443", "address already in use")
	})
	t.Run("server", func(t *testing.T) {
		kill()
		// The keys of another cluster, as after copying the wrong backup.
		hostExec(t, "host-3", "sh", "-c", "rm -rf "+dir+"/server/pki")
		out := onHost(t, "host-3", args...)
		contains(t, "the server", out, "holds cluster", "this server's keys are of cluster", "data directory")
	})
	if _, err := client(t).CoreV1().Nodes().Get(t.Context(), "other", metav1.GetOptions{}); err == nil {
		t.Error("a refused agent has left a Node")
	}
}

// TestFullDisk: a daemon on a full disk says so and ends.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	needCluster(t)
	const dir = "/var/tmp/full"
	// In one command: a mount is seen by all that run on the host.
	hostExec(t, "host-3", "sh", "-c", "mkdir -p "+dir+" && mount -t tmpfs -o size=64k tmpfs "+dir+" && (busybox dd if=/dev/zero of="+dir+"/filler bs=1k 2>/dev/null; true)")
	t.Cleanup(func() { hostExec(t, "host-3", "umount", dir) })
	token := strings.TrimSpace(lighter(t, "token", "create", "--ttl", "10m"))
	out := onHost(t, "host-3", "agent", "--config", "/dev/null", "--data-dir", dir, "--run-dir", "/var/tmp/full-run", "--agent-port", "10397",
		"--server", "https://"+nodeIPs(t)[0]+":6443", "--node-name", "full", "--token", token)
	contains(t, "the agent", out, "no space left on device", dir)
	out = onHost(t, "host-3", "server", "--config", "/dev/null", "--no-agent", "--node-name", "full", "--port", "7444", "--data-dir", dir)
	contains(t, "the server", out, "no space left on device", dir)
	if _, err := client(t).CoreV1().Nodes().Get(t.Context(), "full", metav1.GetOptions{}); err == nil {
		t.Error("an agent that could not store its keys has left a Node")
	}
}
