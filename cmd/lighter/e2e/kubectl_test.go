package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// web is a Deployment whose pods answer with their version; %s is the version.
const web = `apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        image: toolbox
        imagePullPolicy: IfNotPresent
        command: [sh, -c, "echo $VERSION > /www/index.html; exec httpd -f -p 8080 -h /www"]
        env: [{name: VERSION, value: %q}]
        ports: [{name: http, containerPort: 8080}]
        readinessProbe: {httpGet: {path: /, port: http}, periodSeconds: 1}
`

// talker prints a line, echoes its input, and ends on the line "bye".
const talker = `apiVersion: v1
kind: Pod
metadata: {name: talker, labels: {app: talker}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: toolbox
    imagePullPolicy: IfNotPresent
    stdin: true
    command: [sh, -c, 'echo hello from main; while read line; do echo "heard $line"; [ "$line" != bye ] || exit 3; done; sleep 1d']
  - name: side
    image: toolbox
    imagePullPolicy: IfNotPresent
    command: [sh, -c, 'echo hello from side; exec sleep 1d']
`

// TestStreams: what goes through the agent's endpoint.
func TestStreams(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, k tool) {
		ns := namespace(t)
		toolbox(t, ns)
		create(t, ns, talker)
		untilReady(t, ns, "talker")
		eventually(t, 20*time.Second, "both containers say hello", func() error {
			out := lighter(t, "logs", "-n", ns, "talker", "--all-containers")
			if !strings.Contains(out, "hello from main") || !strings.Contains(out, "hello from side") {
				return errOutput(out)
			}
			return nil
		})
		in := func(args ...string) []string { return append(args, "-n", ns) }

		t.Run("exec", func(t *testing.T) { testExec(t, k, ns) })
		t.Run("cp", func(t *testing.T) { testCopy(t, k, ns) })
		t.Run("logs", func(t *testing.T) {
			k.wants(t, in("logs", "talker", "-c", "side"), "hello from side")
			k.wants(t, in("logs", "talker", "--all-containers", "--prefix", "--timestamps"), "[pod/talker/main]", "hello from side", "T")
			k.wants(t, in("logs", "-l", "app=talker", "--tail=1", "--all-containers"), "hello from main")
			k.fails(t, in("logs", "talker", "-c", "nobody"), "nobody")
			k.fails(t, in("logs", "talker", "--previous", "-c", "side"), "previous terminated container")
		})
		t.Run("Ctrl-C", func(t *testing.T) { testInterrupt(t, k, ns) })
		t.Run("port-forward", func(t *testing.T) { testPortForward(t, k, ns) })
		t.Run("attach, logs -f, logs --previous", func(t *testing.T) { testAttach(t, k, ns) })
	})
}

// testInterrupt: what goes on for ever ends by a signal.
func testInterrupt(t *testing.T, k tool, ns string) {
	for _, args := range [][]string{
		{"attach", "talker", "-c", "side"}, {"logs", "-f", "talker", "-c", "side"}, {"get", "pods", "-w"},
		{"exec", "talker", "-c", "side", "--", "sh", "-c", "echo begins; sleep 1000"}, {"port-forward", "talker", ":80"},
	} {
		for _, signal := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
			cmd := k.command(t, time.Minute, append([]string{args[0], "-n", ns}, args[1:]...)...)
			pipe := cmd.StdoutPipe
			if args[0] == "attach" {
				pipe = cmd.StderrPipe // it says that it waits
			}
			out, err := pipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			if _, err := out.Read(make([]byte, 1)); err != nil {
				t.Errorf("%v: %v", args, err)
			}
			if err := cmd.Process.Signal(signal); err != nil {
				t.Fatal(err)
			}
			begun := time.Now()
			_ = cmd.Wait()
			if took := time.Since(begun); took > 30*time.Second {
				t.Errorf("%v ended %s after signal %v", args, took, signal)
			}
		}
	}
}

func testExec(t *testing.T, k tool, ns string) {
	exec := func(stdin string, args ...string) result {
		return k.try(t, stdin, append([]string{"exec", "-n", ns}, args...)...)
	}
	if r := exec("", "talker", "--", "sh", "-c", "echo out; echo err >&2; exit 42"); r.code != 42 || r.out != "out\n" || !strings.Contains(r.err, "err\n") {
		t.Errorf("exit code, stdout, stderr: %+v", r)
	}
	if r := exec("one\ntwo\n", "-i", "talker", "-c", "side", "--", "wc", "-l"); r.code != 0 || strings.TrimSpace(r.out) != "2" {
		t.Errorf("stdin: %+v", r)
	}
	big := strings.Repeat("0123456789abcdef", 1<<16) // 1 MiB
	if r := exec(big, "-i", "talker", "-c", "side", "--", "cat"); r.code != 0 || r.out != big {
		t.Errorf("1 MiB through cat: exit code %d, %d bytes, %s", r.code, len(r.out), r.err)
	}
	if r := exec("", "talker", "--", "no-such-program"); r.code == 0 || !strings.Contains(r.err, "no-such-program") {
		t.Errorf("missing program: %+v", r)
	}
	if r := exec("", "talker", "-c", "nobody", "--", "true"); r.code == 0 || !strings.Contains(r.err, "nobody") {
		t.Errorf("missing container: %+v", r)
	}
}

func testCopy(t *testing.T, k tool, ns string) {
	dir := t.TempDir()
	content := strings.Repeat("copied ", 100_000)
	writeFiles(t, dir, map[string]string{"folder/a": content, "folder/deep/b": "b"})
	k.run(t, "cp", filepath.Join(dir, "folder"), ns+"/talker:/tmp/folder", "-c", "side")
	k.run(t, "cp", ns+"/talker:/tmp/folder", filepath.Join(dir, "back"), "-c", "side")
	for name, want := range map[string]string{"a": content, "deep/b": "b"} {
		if got, err := os.ReadFile(filepath.Join(dir, "back", name)); err != nil || string(got) != want {
			t.Errorf("%s came back with %d bytes, %v", name, len(got), err)
		}
	}
}

// testPortForward also goes to a port where nobody listens.
func testPortForward(t *testing.T, k tool, ns string) {
	create(t, ns, fmt.Sprintf(web, "forwarded"))
	eventually(t, 30*time.Second, "web is Ready", func() error {
		if n := len(readyPods(t, ns, "app=web")); n != 2 {
			return fmt.Errorf("%d are", n)
		}
		return nil
	})
	lighter(t, "expose", "-n", ns, "deployment/web", "--port=80", "--target-port=http")
	for _, target := range []string{"deployment/web", "service/web"} {
		port := "8080"
		if target == "service/web" {
			port = "80"
		}
		cmd := k.command(t, 30*time.Second, "port-forward", "-n", ns, target, ":"+port)
		pipe, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		line, err := bufio.NewReader(pipe).ReadString('\n')
		address := regexp.MustCompile(`127\.0\.0\.1:\d+`).FindString(line)
		if address == "" {
			t.Errorf("%s: says %q, %v", target, line, err)
		} else {
			for range 3 {
				if page, err := get("http://" + address); err != nil || page != "forwarded\n" {
					t.Errorf("%s: %q, %v", target, page, err)
				}
			}
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
}

// testAttach talks to the main container while a second command follows its
// log, and lets it end with exit code 3, so that it is started again.
func testAttach(t *testing.T, k tool, ns string) {
	follow := k.command(t, 60*time.Second, "logs", "-f", "-n", ns, "talker", "-c", "main")
	followed, err := follow.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := follow.Start(); err != nil {
		t.Fatal(err)
	}
	readUntil(t, "logs -f", followed, "hello from main") // of this run, not of the next
	attach := k.command(t, 60*time.Second, "attach", "-i", "-n", ns, "talker", "-c", "main")
	input, err := attach.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	said, err := attach.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := attach.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(input, "you there\n"); err != nil {
		t.Fatal(err)
	}
	readUntil(t, "attach", said, "heard you there")
	if _, err := io.WriteString(input, "bye\n"); err != nil {
		t.Fatal(err)
	}
	_ = input.Close()
	readUntil(t, "logs -f", followed, "heard bye")
	_ = attach.Wait()
	_ = follow.Wait() // ends with the container
	pod := until(t, ns, "talker", 30*time.Second, "runs again", func(pod *corev1.Pod) bool {
		for _, status := range pod.Status.ContainerStatuses {
			if status.Name == "main" {
				return status.RestartCount == 1 && status.State.Running != nil
			}
		}
		return false
	})
	for _, status := range pod.Status.ContainerStatuses {
		if last := status.LastTerminationState.Terminated; status.Name == "main" && (last == nil || last.ExitCode != 3 || last.Reason != "Error") {
			t.Errorf("the last run ended as %+v", last)
		}
		if status.Name == "side" && status.RestartCount != 0 {
			t.Error("the other container was restarted as well")
		}
	}
	k.wants(t, []string{"logs", "-n", ns, "talker", "-c", "main", "--previous"}, "hello from main", "heard bye")
}

// readUntil reads lines until one contains want; the command's own limit ends it.
func readUntil(t *testing.T, what string, from io.Reader, want string) {
	t.Helper()
	var all strings.Builder
	scanner := bufio.NewScanner(from)
	for scanner.Scan() {
		all.WriteString(scanner.Text() + "\n")
		if strings.Contains(scanner.Text(), want) {
			return
		}
	}
	t.Fatalf("%s: no %q in:\n%s", what, want, all.String())
}

// TestWorkloadVerbs: deploying, changing, going back.
func TestWorkloadVerbs(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, k tool) {
		ns := namespace(t)
		toolbox(t, ns)
		in := func(args ...string) []string { return append(args, "-n", ns) }
		file := filepath.Join(t.TempDir(), "web.yaml")
		serves := func(version string) {
			t.Helper()
			eventually(t, 20*time.Second, "all pods serve "+version, func() error {
				pods := readyPods(t, ns, "app=web")
				if len(pods) != 2 {
					return fmt.Errorf("%d pods are Ready", len(pods))
				}
				for _, pod := range pods {
					if page, err := inPod(t, ns, pod.Name, "wget -qO- http://127.0.0.1:8080/"); err != nil || page != version {
						return fmt.Errorf("%s serves %q, %w", pod.Name, page, err)
					}
				}
				return nil
			})
		}
		apply := func(version, want string) {
			t.Helper()
			if err := os.WriteFile(file, fmt.Appendf(nil, web, version), 0o600); err != nil {
				t.Fatal(err)
			}
			k.wants(t, in("apply", "--server-side", "-f", file), want)
			k.wants(t, in("rollout", "status", "deployment/web", "--timeout=180s"), "successfully rolled out")
		}
		if k.name == "lighter" { // its apply is always server-side, and the flag is kubectl's
			apply = func(version, want string) {
				t.Helper()
				if err := os.WriteFile(file, fmt.Appendf(nil, web, version), 0o600); err != nil {
					t.Fatal(err)
				}
				k.wants(t, in("apply", "-f", file), "deployment.apps/web")
				k.wants(t, in("rollout", "status", "deployment/web", "--timeout=180s"), "successfully rolled out")
			}
		}
		apply("one", "serverside-applied")
		serves("one")
		apply("two", "serverside-applied")
		serves("two")
		k.wants(t, in("rollout", "history", "deployment/web"), "REVISION", "1", "2")
		k.wants(t, in("rollout", "history", "deployment/web", "--revision=1"), "VERSION:", "one")
		k.run(t, in("rollout", "undo", "deployment/web")...)
		k.run(t, in("rollout", "status", "deployment/web", "--timeout=180s")...)
		serves("one")

		k.run(t, in("rollout", "pause", "deployment/web")...)
		k.run(t, in("set", "env", "deployment/web", "VERSION=three")...)
		serves("one")
		k.run(t, in("rollout", "resume", "deployment/web")...)
		k.run(t, in("rollout", "status", "deployment/web", "--timeout=180s")...)
		serves("three")
		before := lives(t, ns, "app=web")
		k.run(t, in("rollout", "restart", "deployment/web")...)
		k.run(t, in("rollout", "status", "deployment/web", "--timeout=180s")...)
		for name := range lives(t, ns, "app=web") {
			if _, old := before[name]; old {
				t.Errorf("rollout restart has kept %s", name)
			}
		}
		testWaitAndWatch(t, k, ns)
		testCascades(t, k, ns, file)
	})
}

// testWaitAndWatch scales while others wait and watch.
func testWaitAndWatch(t *testing.T, k tool, ns string) {
	watch := k.command(t, 60*time.Second, "get", "deployment", "web", "-w", "-n", ns, "-o", "jsonpath={.status.readyReplicas}{\"\\n\"}")
	events, err := watch.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := watch.Start(); err != nil {
		t.Fatal(err)
	}
	k.run(t, "scale", "-n", ns, "deployment/web", "--replicas=3", "--current-replicas=2")
	k.wants(t, []string{"wait", "-n", ns, "deployment/web", "--for=jsonpath={.status.readyReplicas}=3", "--timeout=180s"}, "condition met")
	readUntil(t, "get -w", events, "3")
	_ = watch.Process.Kill()
	_ = watch.Wait()
	k.fails(t, []string{"scale", "-n", ns, "deployment/web", "--replicas=9", "--current-replicas=2"}, "xpected replicas to be 2, was 3")
	k.fails(t, []string{"wait", "-n", ns, "deployment/web", "--for=jsonpath={.status.readyReplicas}=7", "--timeout=1s"}, "timed out")
}

// testCascades deletes the Deployment in the three ways there are.
func testCascades(t *testing.T, k tool, ns, file string) {
	// A ReplicaSet without its Deployment keeps its pods.
	k.run(t, "delete", "-n", ns, "deployment/web", "--cascade=orphan")
	if n := len(readyPods(t, ns, "app=web")); n != 3 {
		t.Errorf("%d pods are left by --cascade=orphan, want 3", n)
	}
	lighter(t, "apply", "-n", ns, "-f", file, "--wait=false")
	eventually(t, 20*time.Second, "the new Deployment adopts the ReplicaSets", func() error {
		if out := lighter(t, "get", "replicasets", "-n", ns, "-o", "jsonpath={.items[?(@.spec.replicas>0)].metadata.ownerReferences[0].name}"); !strings.Contains(out, "web") {
			return fmt.Errorf("owners: %q", out)
		}
		return nil
	})
	k.run(t, "delete", "-n", ns, "deployment/web", "--cascade=foreground", "--timeout=180s")
	if out := lighter(t, "get", "replicasets,pods", "-n", ns, "-l", "app=web", "-o", "name"); strings.TrimSpace(out) != "" {
		t.Errorf("a foreground deletion has returned while these are left: %s", out)
	}
	lighter(t, "apply", "-n", ns, "-f", file)
	k.run(t, "delete", "-n", ns, "-f", file)
	eventually(t, 20*time.Second, "the background deletion takes everything along", func() error {
		if out := lighter(t, "get", "replicasets,pods", "-n", ns, "-l", "app=web", "-o", "name"); strings.TrimSpace(out) != "" {
			return fmt.Errorf("left: %s", out)
		}
		return nil
	})
}

// TestObjectVerbs needs no pods.
func TestObjectVerbs(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, k tool) {
		ns := namespace(t)
		in := func(args ...string) []string { return append(args, "-n", ns) }
		k.run(t, in("create", "configmap", "c", "--from-literal=a=1")...)
		k.fails(t, in("create", "configmap", "c"), "already exists")
		k.run(t, in("label", "configmap/c", "tier=gold")...)
		k.fails(t, in("label", "configmap/c", "tier=silver"), "already has a value")
		k.run(t, in("annotate", "configmap/c", "note=kept")...)
		k.wants(t, in("get", "configmaps", "-l", "tier=gold", "-o", "name"), "configmap/c")
		k.run(t, in("patch", "configmap/c", "--type=json", "-p", `[{"op":"replace","path":"/data/a","value":"2"}]`)...)
		k.run(t, in("patch", "configmap/c", "--type=merge", "-p", `{"data":{"b":"3"}}`)...)
		k.wants(t, in("get", "configmap/c", "-o", "jsonpath={.data}"), `"a":"2"`, `"b":"3"`)
		k.wants(t, in("describe", "configmap/c"), "tier=gold", "note: kept")
		k.fails(t, in("get", "configmap/nobody"), "NotFound")
		k.fails(t, in("get", "nonsense"), "doesn't have a resource type")

		k.wants(t, []string{"explain", "deployment.spec.strategy"}, "RollingUpdate", "rollingUpdate")
		k.wants(t, []string{"explain", "image.spec.source"}, "path")
		k.wants(t, []string{"api-resources"}, "images", "lighter.dev/v1alpha1", "deployments")
		k.wants(t, []string{"auth", "can-i", "create", "deployments"}, "yes")
		k.wants(t, in("create", "serviceaccount", "robot"), "created")
		if token := strings.TrimSpace(k.run(t, in("create", "token", "robot", "--duration=10m")...)); strings.Count(token, ".") != 2 {
			t.Errorf("not a JWT: %s", token)
		} else {
			k.wants(t, []string{"auth", "whoami", "--token", token, "--kubeconfig", tokenless(t)}, "system:serviceaccount:"+ns+":robot")
		}
		r := k.try(t, "", in("auth", "can-i", "delete", "pods", "--as=system:serviceaccount:"+ns+":robot")...)
		if r.code != 1 || !strings.Contains(r.out, "no") {
			t.Errorf("a new service account may delete pods: %+v", r)
		}
		k.run(t, in("create", "rolebinding", "r", "--clusterrole=edit", "--serviceaccount="+ns+":robot")...)
		eventually(t, 30*time.Second, "the binding counts", func() error {
			if r := k.try(t, "", in("auth", "can-i", "delete", "pods", "--as=system:serviceaccount:"+ns+":robot")...); r.code != 0 {
				return fmt.Errorf("%+v", r)
			}
			return nil
		})
		testDiscovery(t, k)
	})
}

// tokenless is the admin's kubeconfig without the admin's certificate.
func tokenless(t *testing.T) string {
	t.Helper()
	content, err := os.ReadFile(shared.kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	stripped := regexp.MustCompile(`(?m)^ *client-(certificate|key)(-data)?:.*\n`).ReplaceAllString(string(content), "")
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(path, []byte(stripped), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func testDiscovery(t *testing.T, k tool) {
	k.wants(t, []string{"get", "--raw", "/readyz"}, "ok")
	k.wants(t, []string{"get", "--raw", "/openapi/v3"}, "apis/lighter.dev/v1alpha1")
	k.wants(t, []string{"get", "nodes", "-o", "wide"}, "host-1", "host-2", "host-3", "Ready")
	eventually(t, 20*time.Second, "the server's node has its role, and no other", func() error {
		if out := k.run(t, "get", "nodes", "-l", "node-role.kubernetes.io/control-plane", "--no-headers"); !regexp.MustCompile(`^host-1 +Ready +control-plane `).MatchString(out) || strings.Count(out, "\n") != 1 {
			return errors.New(out)
		}
		return nil
	})
	k.wants(t, []string{"describe", "node", "host-2"}, "Allocatable", "Conditions", "Ready")
	k.wants(t, []string{"cluster-info"}, "is running at")
}

// TestDrain cordons and drains a host: its pods go elsewhere. Not beside other
// tests, which count on all hosts.
func TestDrain(t *testing.T) {
	needCluster(t)
	ns := namespace(t)
	toolbox(t, ns)
	k := tool{"lighter", shared.binary}
	lighter(t, "cordon", "host-1", "host-2")
	t.Cleanup(func() { lighter(t, "uncordon", "host-1", "host-2", "host-3") })
	create(t, ns, fmt.Sprintf(web, "drained"))
	on := func(hosts string, n int) {
		t.Helper()
		eventually(t, 30*time.Second, fmt.Sprintf("%d pods on %s", n, hosts), func() error {
			found := 0
			for _, pod := range readyPods(t, ns, "app=web") {
				if strings.Contains(hosts, pod.Spec.NodeName) {
					found++
				}
			}
			if found != n {
				return fmt.Errorf("%d are", found)
			}
			return nil
		})
	}
	on("host-3", 2)
	lighter(t, "uncordon", "host-1", "host-2")
	k.wants(t, []string{"drain", "host-3", "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=180s", "--pod-selector=app=web"}, "host-3 cordoned", "evicted", "host-3 drained")
	on("host-1 host-2", 2)
	k.wants(t, []string{"get", "node", "host-3"}, "SchedulingDisabled")
	lighter(t, "uncordon", "host-3")
}
