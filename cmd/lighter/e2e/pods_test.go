package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// pod makes a manifest of one container that runs a shell line; more is what
// else its spec says, each line indented by two.
func pod(name, line string, more ...string) string {
	text := fmt.Sprintf("apiVersion: v1\nkind: Pod\nmetadata: {name: %s, labels: {app: %s}}\nspec:\n  terminationGracePeriodSeconds: 1\n", name, name)
	container := fmt.Sprintf("  containers:\n  - name: c\n    image: toolbox\n    imagePullPolicy: IfNotPresent\n    command: [sh, -c, %q]\n", line)
	for _, part := range more {
		if rest, ok := strings.CutPrefix(part, "c "); ok { // of the container
			container += "    " + rest + "\n"
		} else {
			text += "  " + part + "\n"
		}
	}
	return text + container
}

const never = "restartPolicy: Never"

// TestPods shares one namespace and its image among many pods.
func TestPods(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	toolbox(t, ns)
	t.Run("pods", func(t *testing.T) { // returns when all of them have
		for _, test := range []struct {
			name string
			run  func(t *testing.T, ns string)
		}{
			{"init and several containers", testInit},
			{"restart policies", testRestart},
			{"environment", testEnvironment},
			{"volumes", testVolumes},
			{"out of memory", testOOM},
			{"security", testSecurity},
			{"pre-stop hook and grace", testPreStop},
			{"host port and host network", testHostNetwork},
			{"deadline", testDeadline},
			{"probes", testProbes},
			{"unschedulable", testUnschedulable},
			{"image by tag of nobody", testMissingImage},
			{"missing ConfigMap and Secret", testMissingConfig},
		} {
			t.Run(test.name, func(t *testing.T) {
				t.Parallel()
				test.run(t, ns)
			})
		}
	})
}

func testInit(t *testing.T, ns string) {
	create(t, ns, pod("init", "cat /work/one /work/two; sleep 0.2", never,
		"volumes: [{name: work, emptyDir: {}}]",
		"initContainers:",
		"- {name: one, image: toolbox, imagePullPolicy: IfNotPresent, command: [sh, -c, 'sleep 0.2; echo first > /work/one'], volumeMounts: [{name: work, mountPath: /work}]}",
		"- {name: two, image: toolbox, imagePullPolicy: IfNotPresent, command: [sh, -c, 'cat /work/one && echo second > /work/two'], volumeMounts: [{name: work, mountPath: /work}]}",
		"c volumeMounts: [{name: work, mountPath: /work}]")+
		"  - {name: d, image: toolbox, imagePullPolicy: IfNotPresent, command: [sh, -c, 'hostname; echo $FROM_IMAGE']}\n")
	phase, log := untilDone(t, ns, "init")
	if phase != corev1.PodSucceeded {
		t.Errorf("the pod has %s", phase)
	}
	contains(t, "its log", log, "first\nsecond", "init", "yes")

	create(t, ns, pod("initfails", "echo never", never,
		"initContainers: [{name: bad, image: toolbox, imagePullPolicy: IfNotPresent, command: [sh, -c, 'exit 9']}]"))
	until(t, ns, "initfails", 20*time.Second, "has failed", func(pod *corev1.Pod) bool { return pod.Status.Phase == corev1.PodFailed })
	if state := getPod(t, ns, "initfails").Status.InitContainerStatuses[0].State.Terminated; state == nil || state.ExitCode != 9 {
		t.Errorf("the init container: %+v", state)
	}
}

func testRestart(t *testing.T, ns string) {
	create(t, ns, pod("never", "exit 4", never)+"---\n"+pod("onfailure", "exit 0", "restartPolicy: OnFailure")+"---\n"+pod("again", "exit 5", "restartPolicy: OnFailure"))
	if phase, _ := untilDone(t, ns, "never"); phase != corev1.PodFailed {
		t.Errorf("exit 4 with Never: %s", phase)
	}
	if phase, _ := untilDone(t, ns, "onfailure"); phase != corev1.PodSucceeded {
		t.Errorf("exit 0 with OnFailure: %s", phase)
	}
	p := until(t, ns, "again", 40*time.Second, "backs off", func(pod *corev1.Pod) bool {
		status := pod.Status.ContainerStatuses
		return len(status) == 1 && status[0].RestartCount >= 1 && status[0].State.Waiting != nil && status[0].State.Waiting.Reason == "CrashLoopBackOff"
	})
	if last := p.Status.ContainerStatuses[0].LastTerminationState.Terminated; last == nil || last.ExitCode != 5 {
		t.Errorf("the last run: %+v", last)
	}
}

func testEnvironment(t *testing.T, ns string) {
	create(t, ns, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: env}\ndata: {COLOR: blue, SIZE: large}\n---\n"+
		"apiVersion: v1\nkind: Secret\nmetadata: {name: env}\nstringData: {PASSWORD: s3cret}\n---\n"+
		pod("env", "env", never,
			"c envFrom: [{configMapRef: {name: env}}, {secretRef: {name: env}, prefix: S_}, {configMapRef: {name: nobody, optional: true}}]",
			"c resources: {limits: {memory: 32Mi, cpu: 500m}}",
			"c env: [{name: ONE, valueFrom: {configMapKeyRef: {name: env, key: SIZE}}}, {name: TWO, valueFrom: {secretKeyRef: {name: env, key: PASSWORD}}},"+
				" {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}, {name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}},"+
				" {name: APP, valueFrom: {fieldRef: {fieldPath: \"metadata.labels['app']\"}}}, {name: LIMIT, valueFrom: {resourceFieldRef: {resource: limits.memory}}},"+
				" {name: SUM, value: $(ONE)-$(TWO)-$$(ONE)}]"))
	_, log := untilDone(t, ns, "env")
	p := getPod(t, ns, "env")
	contains(t, "its environment", log, "COLOR=blue", "S_PASSWORD=s3cret", "ONE=large", "TWO=s3cret", "NODE="+p.Spec.NodeName, "IP="+p.Status.PodIP,
		"APP=env", "LIMIT=33554432", "SUM=large-s3cret-$(ONE)", "FROM_IMAGE=yes", "KUBERNETES_SERVICE_HOST=10.43.0.1", "HOSTNAME=env")
}

func testVolumes(t *testing.T, ns string) {
	create(t, ns, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: vol}\ndata: {file: content, other: more}\n---\n"+
		"apiVersion: v1\nkind: Secret\nmetadata: {name: vol}\nstringData: {key: hidden}\n---\n"+
		pod("volumes", "sleep 1d",
			"volumes:",
			"- {name: empty, emptyDir: {}}",
			"- {name: ram, emptyDir: {medium: Memory, sizeLimit: 1Mi}}",
			"- {name: host, hostPath: {path: /etc/hostname, type: File}}",
			"- {name: config, configMap: {name: vol, items: [{key: file, path: deep/name, mode: 256}]}}",
			"- {name: live, configMap: {name: vol}}",
			"- {name: secret, secret: {secretName: vol, defaultMode: 256}}",
			"- {name: about, downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}}",
			"- {name: mixed, projected: {sources: [{configMap: {name: vol}}, {secret: {name: vol}}, {serviceAccountToken: {path: token, audience: test}}]}}",
			"securityContext: {runAsUser: 1000, fsGroup: 2000}",
			"c volumeMounts: [{name: empty, mountPath: /v/empty}, {name: ram, mountPath: /v/ram}, {name: host, mountPath: /v/host, readOnly: true}, {name: config, mountPath: /v/config},"+
				" {name: live, mountPath: /v/live}, {name: live, mountPath: /v/sub, subPath: other}, {name: secret, mountPath: /v/secret}, {name: about, mountPath: /v/about}, {name: mixed, mountPath: /v/mixed}]"))
	p := untilReady(t, ns, "volumes")
	for line, want := range map[string]string{
		"echo x > /v/empty/x && cat /v/empty/x": "x",
		"stat -c %g /v/empty":                   "2000",
		"grep -c ' /v/ram tmpfs ' /proc/mounts": "1",
		"cat /v/host":                           p.Spec.NodeName,
		"cat /v/config/deep/name":               "content",
		"ls /v/config":                          "deep",
		"cat /v/sub":                            "more",
		"cat /v/secret/key":                     "hidden",
		"stat -Lc %a /v/secret/key":             "440", // 0400, and fsGroup reads
		"cat /v/about/labels":                   `app="volumes"`,
		"cat /v/mixed/file /v/mixed/key":        "contenthidden",
		"grep -o '\\.' /v/mixed/token | wc -l":  "2",
		"test -s /var/run/secrets/kubernetes.io/serviceaccount/token && test -s /var/run/secrets/kubernetes.io/serviceaccount/ca.crt && cat /var/run/secrets/kubernetes.io/serviceaccount/namespace": ns,
		"touch /v/live/x 2>/dev/null || echo read-only":  "read-only",
		"touch /v/host 2>/dev/null || echo not writable": "not writable",
		"id -u; id -G": "1000\n0 2000",
	} {
		if got, err := inPod(t, ns, "volumes", line); err != nil || got != want {
			t.Errorf("%s: %q, %v, want %q", line, got, err, want)
		}
	}
	lighter(t, "patch", "configmap/vol", "-n", ns, "--type=merge", "-p", `{"data":{"file":"changed"}}`)
	eventually(t, 20*time.Second, "the mounted ConfigMap follows", func() error {
		if got, err := inPod(t, ns, "volumes", "cat /v/live/file"); err != nil || got != "changed" {
			return fmt.Errorf("%q, %w", got, err)
		}
		return nil
	})
}

func testOOM(t *testing.T, ns string) {
	create(t, ns, pod("oom", "tail /dev/zero", never, "c resources: {limits: {memory: 16Mi}}"))
	p := until(t, ns, "oom", 40*time.Second, "has failed", func(pod *corev1.Pod) bool { return pod.Status.Phase == corev1.PodFailed })
	if state := p.Status.ContainerStatuses[0].State.Terminated; state == nil || state.Reason != "OOMKilled" || state.ExitCode != 137 {
		t.Errorf("ended as %+v", state)
	}
}

func testSecurity(t *testing.T, ns string) {
	create(t, ns, pod("secure", "sleep 1d",
		"c securityContext: {runAsUser: 1234, runAsGroup: 2345, runAsNonRoot: true, readOnlyRootFilesystem: true, allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}, seccompProfile: {type: RuntimeDefault}}")+"---\n"+
		pod("caps", "sleep 1d", "c securityContext: {capabilities: {drop: [ALL], add: [NET_RAW]}}")+"---\n"+
		pod("asroot", "sleep 1d", "c securityContext: {runAsNonRoot: true}"))
	untilReady(t, ns, "secure")
	untilReady(t, ns, "caps")
	for line, want := range map[string]string{
		"id -u; id -g":                                      "1234\n2345",
		"touch /x 2>/dev/null || echo read-only":            "read-only",
		"grep CapEff /proc/self/status":                     "CapEff:\t0000000000000000",
		"grep NoNewPrivs /proc/self/status":                 "NoNewPrivs:\t1",
		"grep Seccomp: /proc/self/status":                   "Seccomp:\t2",
		"unshare -U true 2>/dev/null || echo no namespaces": "no namespaces",
		"test -w /proc/sys/kernel/panic || echo read-only":  "read-only",
		"ls /dev | grep -cE '^(sd|vd|mem|kmsg)' || true":    "0",
	} {
		if got, err := inPod(t, ns, "secure", line+" 2>/dev/null"); err != nil || got != want {
			t.Errorf("%s: %q, %v, want %q", line, got, err, want)
		}
	}
	if got, err := inPod(t, ns, "caps", "grep CapEff /proc/self/status"); err != nil || got != "CapEff:\t0000000000002000" {
		t.Errorf("capabilities: %q, %v", got, err)
	}
	p := until(t, ns, "asroot", 20*time.Second, "is refused", func(pod *corev1.Pod) bool {
		status := pod.Status.ContainerStatuses
		return len(status) == 1 && status[0].State.Waiting != nil && status[0].State.Waiting.Reason == "CreateContainerConfigError"
	})
	contains(t, "why root is refused", p.Status.ContainerStatuses[0].State.Waiting.Message, "runAsNonRoot")
}

// testPreStop: the hook runs first, then SIGTERM, and the pod has its grace for both.
func testPreStop(t *testing.T, ns string) {
	create(t, ns, strings.Replace(pod("stops", "trap 'echo terminated >> /host/log; exit 0' TERM; while true; do sleep 0.1; done",
		"volumes: [{name: host, hostPath: {path: /var/tmp/"+ns+", type: DirectoryOrCreate}}]", "nodeName: host-2",
		"c volumeMounts: [{name: host, mountPath: /host}]",
		"c lifecycle: {preStop: {exec: {command: [sh, -c, 'sleep 1; echo hook >> /host/log']}}, postStart: {exec: {command: [sh, -c, 'echo started >> /host/log']}}}"),
		"GracePeriodSeconds: 1", "GracePeriodSeconds: 60", 1))
	untilReady(t, ns, "stops")
	start := time.Now()
	lighter(t, "delete", "-n", ns, "pod/stops", "--timeout=180s")
	if took := time.Since(start); took < time.Second || took > 55*time.Second {
		t.Errorf("it took %s", took)
	}
	if log := hostExec(t, "host-2", "cat", "/var/tmp/"+ns+"/log"); log != "started\nhook\nterminated\n" {
		t.Errorf("what happened: %q", log)
	}
	// Who ignores SIGTERM is killed when the grace is over.
	create(t, ns, strings.Replace(pod("stubborn", "trap '' TERM; while true; do sleep 0.1; done"), "GracePeriodSeconds: 1", "GracePeriodSeconds: 2", 1))
	untilReady(t, ns, "stubborn")
	start = time.Now()
	lighter(t, "delete", "-n", ns, "pod/stubborn", "--timeout=180s")
	if took := time.Since(start); took < 1900*time.Millisecond || took > slack*30*time.Second {
		t.Errorf("with a grace of 2 s it took %s", took)
	}
}

func testHostNetwork(t *testing.T, ns string) {
	serve := "echo it is $0 > /tmp/index.html; exec httpd -f -p %d -h /tmp"
	create(t, ns, pod("hostport", fmt.Sprintf(serve, 8080), "nodeName: host-2", "c ports: [{containerPort: 8080, hostPort: 18080}]",
		"c readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}")+"---\n"+
		pod("hostnet", fmt.Sprintf(serve, 18081), "nodeName: host-3", "hostNetwork: true", "c ports: [{containerPort: 18081}]",
			"c readinessProbe: {httpGet: {path: /, port: 18081}, periodSeconds: 1}"))
	first := untilReady(t, ns, "hostport")
	second := untilReady(t, ns, "hostnet")
	if second.Status.PodIP != second.Status.HostIP || first.Status.PodIP == first.Status.HostIP {
		t.Errorf("addresses: %s on %s, %s on %s", first.Status.PodIP, first.Status.HostIP, second.Status.PodIP, second.Status.HostIP)
	}
	for _, url := range []string{"http://" + first.Status.HostIP + ":18080/", "http://" + second.Status.HostIP + ":18081/"} {
		eventually(t, 20*time.Second, url+" answers", func() error { _, err := get(url); return err })
	}
	if name, err := inPod(t, ns, "hostnet", "hostname"); err != nil || name != "host-3" {
		t.Errorf("hostNetwork: host name %q, %v", name, err)
	}
	// The port is taken: the scheduler says so, and nothing runs.
	create(t, ns, pod("portused", "sleep 1d", "nodeSelector: {kubernetes.io/hostname: host-2}", "c ports: [{containerPort: 8080, hostPort: 18080}]"))
	eventually(t, 20*time.Second, "the pod says that the port is in use", func() error {
		for _, condition := range getPod(t, ns, "portused").Status.Conditions {
			if condition.Type == corev1.PodScheduled && strings.Contains(condition.Message, "free ports") {
				return nil
			}
		}
		return fmt.Errorf("%+v", getPod(t, ns, "portused").Status.Conditions)
	})
	lighter(t, "delete", "-n", ns, "pod/hostport", "--timeout=180s")
	untilReady(t, ns, "portused")
}

func testDeadline(t *testing.T, ns string) {
	create(t, ns, pod("late", "sleep 1d", never, "activeDeadlineSeconds: 2"))
	p := until(t, ns, "late", 20*time.Second, "has failed", func(pod *corev1.Pod) bool { return pod.Status.Phase == corev1.PodFailed })
	if p.Status.Reason != "DeadlineExceeded" {
		t.Errorf("reason %q: %s", p.Status.Reason, p.Status.Message)
	}
}

// testProbes: each kind lets a pod become Ready and takes that back.
func testProbes(t *testing.T, ns string) {
	for _, probe := range []struct{ name, line, probe, sick string }{
		{"http", "echo ok > /tmp/health; exec httpd -f -p 8080 -h /tmp", "httpGet: {path: /health, port: 8080}", "rm /tmp/health"},
		{"exec", "touch /tmp/health; sleep 1d", "exec: {command: [test, -e, /tmp/health]}", "rm /tmp/health"},
		{"tcp", "httpd -f -p 8080 & echo $! > /tmp/pid; sleep 1d", "tcpSocket: {port: 8080}", "kill $(cat /tmp/pid)"},
		{"grpc", "while ! test -e /tmp/go; do sleep 0.1; done; exec /tmp/kit grpc 8080", "grpc: {port: 8080}", "touch /tmp/sick"},
	} {
		t.Run(probe.name, func(t *testing.T) {
			t.Parallel()
			name := "probe" + probe.name
			create(t, ns, pod(name, probe.line, "c readinessProbe: {"+probe.probe+", periodSeconds: 1, timeoutSeconds: 30, failureThreshold: 1}"))
			if probe.name == "grpc" {
				until(t, ns, name, 20*time.Second, "runs", func(pod *corev1.Pod) bool { return pod.Status.Phase == corev1.PodRunning })
				giveKit(t, ns, name)
			}
			untilReady(t, ns, name)
			if _, err := inPod(t, ns, name, probe.sick); err != nil {
				t.Fatal(err)
			}
			until(t, ns, name, 20*time.Second, "is not Ready any more", func(pod *corev1.Pod) bool { return !isReady(pod) })
			if restarts := getPod(t, ns, name).Status.ContainerStatuses[0].RestartCount; restarts != 0 {
				t.Errorf("a readiness probe has restarted the container %d times", restarts)
			}
		})
	}
	t.Run("liveness", func(t *testing.T) {
		t.Parallel()
		create(t, ns, pod("alive", "touch /tmp/health; sleep 1d", "c livenessProbe: {exec: {command: [test, -e, /tmp/health]}, periodSeconds: 1, timeoutSeconds: 30, failureThreshold: 1}",
			"c startupProbe: {exec: {command: [test, -e, /tmp/health]}, periodSeconds: 1, timeoutSeconds: 30, failureThreshold: 100}"))
		untilReady(t, ns, "alive")
		if _, err := inPod(t, ns, "alive", "rm /tmp/health"); err != nil {
			t.Fatal(err)
		}
		until(t, ns, "alive", 20*time.Second, "was restarted", func(pod *corev1.Pod) bool { return pod.Status.ContainerStatuses[0].RestartCount == 1 && isReady(pod) })
		eventually(t, 20*time.Second, "Events tell of it", func() error {
			if text := eventsOf(t, ns, "Pod", "alive"); !strings.Contains(text, "Unhealthy") || !strings.Contains(text, "Killing") {
				return errOutput(text)
			}
			return nil
		})
	})
}

func testUnschedulable(t *testing.T, ns string) {
	create(t, ns, pod("huge", "sleep 1d", "c resources: {requests: {cpu: 1000}}")+"---\n"+pod("picky", "sleep 1d", "nodeSelector: {disk: quantum}"))
	for name, want := range map[string]string{"huge": "3 Insufficient cpu", "picky": "3 node(s) didn't match Pod's node affinity/selector"} {
		eventually(t, 20*time.Second, name+" says why per node", func() error {
			for _, condition := range getPod(t, ns, name).Status.Conditions {
				if condition.Type == corev1.PodScheduled && strings.Contains(condition.Message, want) && strings.Contains(condition.Message, "0/3 nodes") {
					return nil
				}
			}
			return fmt.Errorf("%+v", getPod(t, ns, name).Status.Conditions)
		})
	}
}

// testMissingImage uses a registry that cannot exist; nothing leaves the machine.
func testMissingImage(t *testing.T, ns string) {
	create(t, ns, strings.Replace(pod("noimage", "true"), "image: toolbox", "image: registry.invalid/nothing:1", 1)+"---\n"+
		strings.Replace(pod("badname", "true"), "image: toolbox", "image: 'Not A Name'", 1)+"---\n"+
		strings.Replace(strings.Replace(pod("nopull", "true"), "image: toolbox", "image: registry.invalid/nothing:2", 1), "IfNotPresent", "Never", 1))
	for name, reasons := range map[string]string{"noimage": "ErrImagePull ImagePullBackOff", "badname": "InvalidImageName", "nopull": "ErrImageNeverPull"} {
		p := until(t, ns, name, 30*time.Second, "waits with "+reasons, func(pod *corev1.Pod) bool {
			status := pod.Status.ContainerStatuses
			return len(status) == 1 && status[0].State.Waiting != nil && status[0].State.Waiting.Reason != "" && strings.Contains(reasons, status[0].State.Waiting.Reason)
		})
		if message := p.Status.ContainerStatuses[0].State.Waiting.Message; name != "badname" && !strings.Contains(message, "registry.invalid/nothing") {
			t.Errorf("%s: the message does not name the image: %s", name, message)
		}
	}
}

func testMissingConfig(t *testing.T, ns string) {
	create(t, ns, pod("nocm", "cat /etc/c/k; sleep 1d", "c env: [{name: A, valueFrom: {configMapKeyRef: {name: latecomer, key: k}}}]")+"---\n"+
		pod("nosecret", "sleep 1d", "volumes: [{name: s, secret: {secretName: latecomer}}]", "c volumeMounts: [{name: s, mountPath: /s}]"))
	p := until(t, ns, "nocm", 20*time.Second, "says what is missing", func(pod *corev1.Pod) bool {
		status := pod.Status.ContainerStatuses
		return len(status) == 1 && status[0].State.Waiting != nil && status[0].State.Waiting.Reason == "CreateContainerConfigError"
	})
	contains(t, "its message", p.Status.ContainerStatuses[0].State.Waiting.Message, "configmap", "latecomer")
	eventually(t, 20*time.Second, "an Event names the missing Secret", func() error {
		if text := eventsOf(t, ns, "Pod", "nosecret"); !strings.Contains(text, "FailedMount") || !strings.Contains(text, `"latecomer" not found`) {
			return fmt.Errorf("there are:\n%s", text)
		}
		return nil
	})
	create(t, ns, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: latecomer}\ndata: {k: v}\n---\napiVersion: v1\nkind: Secret\nmetadata: {name: latecomer}\n")
	untilReady(t, ns, "nocm")
	untilReady(t, ns, "nosecret")
}
