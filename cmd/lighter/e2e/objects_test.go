package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// toolbox builds the image "toolbox" in a namespace: busybox, and nobody's uid.
func toolbox(t *testing.T, ns string) {
	t.Helper()
	dir := t.TempDir()
	busybox, err := os.ReadFile("../../../manifests/guestbook/app/busybox")
	if err != nil {
		t.Fatalf("%v: make guestbook-base makes it", err)
	}
	writeFiles(t, dir, map[string]string{
		"image.yaml":     "apiVersion: lighter.dev/v1alpha1\nkind: Image\nmetadata: {name: toolbox}\nspec: {source: {path: box}}\n",
		"box/busybox":    string(busybox),
		"box/fetch":      fetchScript,
		"box/Dockerfile": toolboxDockerfile,
	})
	lighter(t, "apply", "-n", ns, "-f", filepath.Join(dir, "image.yaml"))
}

const toolboxDockerfile = `FROM scratch
COPY --chmod=755 busybox /bin/busybox
RUN ["/bin/busybox", "mkdir", "-p", "/usr/bin", "/usr/sbin", "/sbin", "/etc", "/tmp", "/www"]
RUN ["/bin/busybox", "--install", "-s"]
COPY --chmod=755 fetch /bin/fetch
RUN echo nobody:x:65534:65534:nobody:/:/bin/sh > /etc/passwd && echo staff:x:50:nobody > /etc/group && chmod 1777 /tmp
ENV FROM_IMAGE=yes
CMD ["sleep", "1d"]
`

// fetchScript fetches / from a host and port. The wget of a static busybox
// crashes where it has to look up a name.
const fetchScript = `#!/bin/sh
body=$(printf 'GET / HTTP/1.0\r\n\r\n' | nc -w 2 "$1" "$2" | sed '1,/^\r*$/d')
[ -n "$body" ] && echo "$body"
`

func writeFiles(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// kit is a static program for what busybox cannot: see testdata/kit.
var kit = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "lighter-e2e-kit")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	cmd := exec.Command("go", "build", "-ldflags", "-s -w", "-o", filepath.Join(dir, "kit"), "./testdata/kit")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build testdata/kit: %w\n%s", err, out)
	}
	return os.ReadFile(filepath.Join(dir, "kit"))
})

// giveKit copies the program kit to /tmp/kit of a pod, and then makes /tmp/go.
func giveKit(t *testing.T, ns, name string) {
	t.Helper()
	content, err := kit()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "kit")
	if err := os.WriteFile(file, content, 0o755); err != nil {
		t.Fatal(err)
	}
	until(t, ns, name, 20*time.Second, "runs", func(pod *corev1.Pod) bool { return pod.Status.Phase == corev1.PodRunning })
	lighter(t, "cp", file, ns+"/"+name+":/tmp/kit")
	if _, err := inPod(t, ns, name, "touch /tmp/go"); err != nil {
		t.Fatal(err)
	}
}

// create applies manifests from standard input, without waiting for them.
func create(t *testing.T, ns, manifest string) {
	t.Helper()
	r := tool{"lighter", shared.binary}.try(t, manifest, "apply", "-n", ns, "--wait=false", "-f", "-")
	if r.code != 0 {
		t.Fatalf("lighter apply: exit code %d\n%s%s\n%s", r.code, r.out, r.err, manifest)
	}
}

func getPod(t *testing.T, ns, name string) *corev1.Pod {
	t.Helper()
	pod, err := client(t).CoreV1().Pods(ns).Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return pod
}

// until waits for a pod to be as check wants it, and returns it.
func until(t *testing.T, ns, name string, timeout time.Duration, what string, check func(pod *corev1.Pod) bool) *corev1.Pod {
	t.Helper()
	var pod *corev1.Pod
	eventually(t, timeout, fmt.Sprintf("pod %s %s", name, what), func() error {
		if pod = getPod(t, ns, name); check(pod) {
			return nil
		}
		return fmt.Errorf("it is %s: %v %v", pod.Status.Phase, pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses)
	})
	return pod
}

func isReady(pod *corev1.Pod) bool {
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodReady {
			return condition.Status == corev1.ConditionTrue
		}
	}
	return false
}

func untilReady(t *testing.T, ns, name string) *corev1.Pod {
	t.Helper()
	return until(t, ns, name, 30*time.Second, "is Ready", isReady)
}

// untilDone waits for a pod that runs to an end, and returns its phase and log.
func untilDone(t *testing.T, ns, name string) (corev1.PodPhase, string) {
	t.Helper()
	pod := until(t, ns, name, 30*time.Second, "has ended", func(pod *corev1.Pod) bool {
		return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
	})
	return pod.Status.Phase, lighter(t, "logs", "-n", ns, name, "--all-containers")
}

// inPod runs a shell line in a pod's first container.
func inPod(t *testing.T, ns, name, line string) (string, error) {
	t.Helper()
	out, err := output("exec", "-n", ns, name, "--", "sh", "-c", line)
	if err != nil {
		err = fmt.Errorf("in %s: %s: %w: %s", name, line, err, out)
	}
	return strings.TrimSpace(out), err
}

// life tells one run of a container from another.
type life struct {
	id, started string
	restarts    int32
}

// lives are all containers of a namespace's pods, by pod and container.
func lives(t *testing.T, ns, selector string) map[string]life {
	t.Helper()
	pods, err := client(t).CoreV1().Pods(ns).List(t.Context(), metav1.ListOptions{LabelSelector: selector})
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]life{}
	for _, pod := range pods.Items {
		for _, status := range pod.Status.ContainerStatuses {
			if running := status.State.Running; running != nil && pod.DeletionTimestamp == nil {
				all[pod.Name+"/"+status.Name] = life{status.ContainerID, running.StartedAt.String(), status.RestartCount}
			}
		}
	}
	return all
}

// eventsOf are the Events about one object: reason and message, one a line.
func eventsOf(t *testing.T, ns, kind, name string) string {
	t.Helper()
	events, err := client(t).CoreV1().Events(ns).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for _, event := range events.Items {
		if event.InvolvedObject.Kind == kind && event.InvolvedObject.Name == name {
			fmt.Fprintf(&text, "%s %s: %s\n", event.Type, event.Reason, event.Message)
		}
	}
	return text.String()
}
