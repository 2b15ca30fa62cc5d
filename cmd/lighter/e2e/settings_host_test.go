package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// TestSettingsOfAHost: settings that a host has from its first start on: where its
// data lies, what runs its containers, and what it may take.
func TestSettingsOfAHost(t *testing.T) {
	needCluster(t)
	runtime, calls := recordingRuntime(t)
	further, furtherCalls := recordingRuntime(t)
	c := newConfigured(t, 1, fmt.Sprintf(`
data-dir: /var/own-data
run-dir: /run/own-run
pod-log-dir: /var/own-logs
runtime: %s
runtimes: [further=%s]
agent-port: 10350
max-pods: 4
node-taints: [dedicated=db:PreferNoSchedule]
socket-group: daemon
build-parallelism: 1
build-memory: 64Mi
build-cpus: "0.25"
log-level: debug
log-format: json
`, runtime, further))
	base := filepath.Join(t.TempDir(), "box")
	c.buildBox(base, "box", "CMD [\"/bin/busybox\", \"sleep\", \"1d\"]\n")
	c.lighter("run", "-d", "--name", "one", "box")

	t.Run("folders", func(t *testing.T) {
		c.onHost("ls -d /var/own-data/agent/images /run/own-run/agent.sock /var/own-logs/default_one_*")
		if out := c.onHost("find /var/lib/lighter /run/lighter /var/log/pods ! -type d 2>/dev/null || true"); strings.TrimSpace(out) != "" {
			t.Errorf("beside them, there are\n%s", out)
		}
	})
	t.Run("runtime", func(t *testing.T) {
		if log, err := os.ReadFile(calls); err != nil || !strings.Contains(string(log), "create") {
			t.Errorf("it was called with %q, %v", log, err)
		}
	})
	t.Run("runtimes", func(t *testing.T) {
		c.lighter("run", "--rm", "--runtime", "further", "--name", "asks", "box", "/bin/busybox", "true")
		if log, err := os.ReadFile(furtherCalls); err != nil || !strings.Contains(string(log), "create") {
			t.Errorf("it was called with %q, %v", log, err)
		}
		out, err := c.try("run", "--rm", "--runtime", "none", "--name", "lost", "box", "/bin/busybox", "true")
		if err == nil {
			t.Error("a container ran by a runtime that is not there")
		}
		contains(t, "an unknown runtime", out, `no OCI runtime "none"`, "further", "runtimes")
	})
	t.Run("socket group", func(t *testing.T) {
		if out := c.onHost("stat -c '%G %a' /run/own-run/agent.sock"); out != "daemon 660\n" {
			t.Errorf("the socket: %s", out)
		}
		c.local("exec", "host-1", "--", "lighter", "images", "--host", "unix:///run/own-run/agent.sock")
	})
	t.Run("node", func(t *testing.T) { testNodeSettings(t, c) })
	t.Run("builds", func(t *testing.T) { testBuildSettings(t, c, base) })
	t.Run("log", func(t *testing.T) {
		var line struct{ Level, Msg string }
		for text := range strings.Lines(c.local("logs", "host-1")) {
			if json.Unmarshal([]byte(text), &line) == nil && line.Level == "DEBUG" && line.Msg != "" {
				return
			}
		}
		t.Error("there is no line of the level debug in JSON")
	})
}

// recordingRuntime is an OCI runtime that writes down how it is called.
func recordingRuntime(t *testing.T) (path, calls string) {
	t.Helper()
	program, err := exec.LookPath("runc")
	if err != nil {
		t.Skip("runc is missing: hack/install-deps.sh installs it")
	}
	dir := t.TempDir()
	path, calls = filepath.Join(dir, "recorder"), filepath.Join(dir, "calls")
	script := fmt.Sprintf("#!/bin/sh\necho \"$@\" >> %s\nexec %s \"$@\"\n", calls, program)
	if err := os.WriteFile(path, []byte(script), 0o755); err != nil { //nolint:gosec // it is a program
		t.Fatal(err)
	}
	return path, calls
}

// onHost runs a shell line on its first host.
func (c *configured) onHost(line string) string {
	c.t.Helper()
	return c.local("exec", "host-1", "--", "sh", "-c", line)
}

// buildBox builds an image of busybox in a folder, with further instructions.
func (c *configured) buildBox(dir, name, more string) {
	c.t.Helper()
	busybox, err := os.ReadFile("../../../manifests/guestbook/app/busybox")
	if err != nil {
		c.t.Fatalf("%v: make guestbook-base makes it", err)
	}
	writeFiles(c.t, dir, map[string]string{"busybox": string(busybox), "Dockerfile": "FROM scratch\nCOPY --chmod=755 busybox /bin/busybox\n" + more})
	c.lighter("build", "-q", "-t", name, dir)
}

// testNodeSettings: what the cluster knows of the host.
func testNodeSettings(t *testing.T, c *configured) {
	var node corev1.Node
	if err := json.Unmarshal([]byte(c.lighter("get", "node", "host-1", "-o", "json")), &node); err != nil {
		t.Fatal(err)
	}
	if port := node.Status.DaemonEndpoints.KubeletEndpoint.Port; port != 10350 {
		t.Errorf("the agent's port is %d", port)
	}
	if out := c.lighter("exec", "one", "--", "/bin/busybox", "echo", "by that port"); out != "by that port\n" {
		t.Errorf("%s", out)
	}
	if taints := node.Spec.Taints; len(taints) != 1 || taints[0] != (corev1.Taint{Key: "dedicated", Value: "db", Effect: corev1.TaintEffectPreferNoSchedule}) {
		t.Errorf("taints: %v", taints)
	}
	eventually(t, 20*time.Second, "one pod is left", func() error {
		if out := c.lighter("get", "pods", "-A", "-o", "name"); strings.TrimSpace(out) != "pod/one" {
			return errOutput(out)
		}
		return nil
	})
	for i := range 3 {
		c.lighter("run", "-d", "--name", fmt.Sprint("more-", i), "box")
	}
	if out, err := c.try("run", "-d", "box"); err == nil || !strings.Contains(out, "Too many pods") {
		t.Errorf("a fifth pod: %v\n%s", err, out)
	}
	c.lighter("rm", "-f", "more-0", "more-1", "more-2")
}

// testBuildSettings: a build gets its share of the host and no more, and another has
// to wait for it.
func testBuildSettings(t *testing.T, c *configured, base string) {
	dockerfile := func(name, step string) string {
		t.Helper()
		path := filepath.Join(base, name)
		text := "FROM box\nRUN [\"/bin/busybox\", \"sh\", \"-c\", " + fmt.Sprintf("%q", step) + "]\n"
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	out, err := c.try("build", "--progress", "plain", "-f", dockerfile("Fat", "busybox tail /dev/zero; echo code $?; exit 1"), base)
	if err == nil || !strings.Contains(out, "code 137") {
		t.Errorf("a step that wants all memory: %v\n%s", err, out)
	}
	// The quarter of a CPU that it gets makes it take four times what it computes.
	const spin = "busybox time busybox sh -c 'i=0; while test $i -lt 200000; do i=$((i+1)); done'"
	out = c.lighter("build", "--progress", "plain", "--no-cache", "-f", dockerfile("Busy", spin), base)
	took, computed := timesIn(t, out)
	if computed <= 0 || took < 2*computed {
		t.Errorf("it took %v and computed %v\n%s", took, computed, out)
	}
	start := time.Now()
	done := make(chan error, 2)
	for _, name := range []string{"First", "Second"} {
		path := dockerfile(name, "busybox sleep 3; echo "+name)
		go func() {
			_, err := c.try("build", "-q", "-f", path, base)
			done <- err
		}()
	}
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if took := time.Since(start); took < 6*time.Second {
		t.Errorf("two builds of three seconds each took %v: side by side", took)
	}
}

// timesIn reads busybox' time: "real 0m 1.02s", and user and sys together.
func timesIn(t *testing.T, out string) (took, computed time.Duration) {
	t.Helper()
	for line := range strings.Lines(out) {
		fields := strings.Fields(line)
		for i := range max(len(fields)-2, 0) {
			d, err := time.ParseDuration(fields[i+1] + fields[i+2])
			switch {
			case err != nil:
			case fields[i] == "real":
				took = d
			case fields[i] == "user", fields[i] == "sys":
				computed += d
			}
		}
	}
	return took, computed
}
