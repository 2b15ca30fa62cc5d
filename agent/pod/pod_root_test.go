package pod_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// serve runs until SIGTERM.
const serve = "trap 'exit 0' TERM; while true; do sleep 1 & wait $!; done"

// TestWholePod runs a pod with everything on the real engine: init container,
// two containers, volumes, probes, environment; restarts the agent below it;
// and deletes it without a trace.
func TestWholePod(t *testing.T) {
	h := newHost(t, &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: "settings", Namespace: "default"}, Data: map[string]string{"colour": "blue"},
	})
	a := h.start(t)
	p := busyboxPod("whole",
		`test "$(cat /shared/greeting)" = hello || exit 1; test "$COLOUR" = blue || exit 2; test "$(cat /settings/colour)" = blue || exit 3; test "$(hostname)" = whole || exit 4; touch /tmp/ready; `+serve,
		serve)
	p.Spec.InitContainers = []corev1.Container{{
		Name: "init", Image: "busybox", ImagePullPolicy: corev1.PullIfNotPresent, Command: []string{"sh", "-c", "echo hello > /shared/greeting"},
		VolumeMounts: []corev1.VolumeMount{{Name: "shared", MountPath: "/shared"}},
	}}
	p.Spec.Volumes = []corev1.Volume{
		{Name: "shared", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory}}},
		{Name: "settings", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "settings"}}}},
	}
	c := &p.Spec.Containers[0]
	c.VolumeMounts = []corev1.VolumeMount{{Name: "shared", MountPath: "/shared"}, {Name: "settings", MountPath: "/settings"}}
	c.Env = []corev1.EnvVar{{Name: "COLOUR", ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{
		LocalObjectReference: corev1.LocalObjectReference{Name: "settings"}, Key: "colour",
	}}}}
	c.ReadinessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"test", "-f", "/tmp/ready"}}}, PeriodSeconds: 1, TimeoutSeconds: 5}
	a.pods.Update(p)
	st := h.waitFor(t, p.UID, "ready", isReady)
	if n := st.ContainerStatuses[0].RestartCount; n != 0 {
		t.Fatalf("restarted %d times: %+v", n, st)
	}
	before, err := a.engine.List(t.Context())
	if err != nil || len(before) != 3 {
		t.Fatalf("%d containers, want 3: %v", len(before), err)
	}

	// The agent goes, the containers stay; the next agent finds them.
	a.stop()
	p = p.DeepCopy()
	p.Status = st
	a = h.start(t)
	a.pods.Update(p)
	again := h.waitFor(t, p.UID, "ready after the agent's restart", isReady)
	for i := range again.ContainerStatuses {
		if again.ContainerStatuses[i].ContainerID != st.ContainerStatuses[i].ContainerID {
			t.Errorf("container %d was replaced", i)
		}
	}
	after, err := a.engine.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i := range after {
		if after[i].PID != before[i].PID {
			t.Errorf("%s has another process", after[i].Spec.ID)
		}
	}
	live(t, h, p)

	gone := p.DeepCopy()
	seconds := int64(60)
	gone.DeletionTimestamp, gone.DeletionGracePeriodSeconds = &metav1.Time{Time: time.Now()}, &seconds
	began := time.Now()
	a.pods.Update(gone)
	h.waitGone(t, p.UID)
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("took %v: the containers obey SIGTERM, so nothing should wait for the grace period", took)
	}
	nothingLeft(t, a)
}

// live changes the ConfigMap and expects the file in the volume to follow.
func live(t *testing.T, h *host, p *corev1.Pod) {
	t.Helper()
	maps := h.client.CoreV1().ConfigMaps("default")
	if _, err := maps.Update(t.Context(), &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: "settings", Namespace: "default", ResourceVersion: "2"}, Data: map[string]string{"colour": "green"},
	}, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(h.dir, "pods", string(p.UID), "volumes", "settings", "colour")
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if raw, err := os.ReadFile(path); err == nil && string(raw) == "green" {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatal("the volume did not follow its ConfigMap")
		case <-tick.C:
		}
	}
}

// nothingLeft looks for containers, namespaces, cgroups, volumes and processes.
func nothingLeft(t *testing.T, a *agent) {
	t.Helper()
	left, err := a.engine.List(t.Context())
	if err != nil || len(left) > 0 {
		t.Errorf("containers: %v, %v", left, err)
	}
	if pinned, err := a.engine.PinnedPods(); err != nil || len(pinned) > 0 {
		t.Errorf("namespaces: %v, %v", pinned, err)
	}
	if snapshots, err := a.store.Containers(t.Context()); err != nil || len(snapshots) > 0 {
		t.Errorf("snapshots: %v, %v", snapshots, err)
	}
	for _, sub := range []string{"pods", "log"} {
		entries, err := os.ReadDir(filepath.Join(a.dir, sub))
		if err != nil && !os.IsNotExist(err) || len(entries) > 0 {
			t.Errorf("%s: %v, %v", sub, entries, err)
		}
	}
	for _, m := range mountsBelow(t, a.dir) {
		if strings.Contains(m, "/pods/") || strings.Contains(m, "/run/") {
			t.Errorf("mount: %s", m)
		}
	}
	groups, err := filepath.Glob("/sys/fs/cgroup/*/" + filepath.Base(a.dir) + "/*/pod*")
	if err != nil || len(groups) > 0 {
		t.Errorf("cgroups: %v, %v", groups, err)
	}
}

// TestCommandNotFound: the user sees what the runtime said.
func TestCommandNotFound(t *testing.T) {
	h := newHost(t)
	a := h.start(t)
	p := busyboxPod("typo", "true")
	p.Spec.RestartPolicy = corev1.RestartPolicyNever
	p.Spec.Containers[0].Command = []string{"/bin/nosuch"}
	a.pods.Update(p)
	st := h.waitFor(t, p.UID, "failed", func(st corev1.PodStatus) bool { return st.Phase == corev1.PodFailed })
	end := st.ContainerStatuses[0].State.Terminated
	if end == nil || end.ExitCode != 128 || !strings.Contains(end.Message, "nosuch") {
		t.Errorf("terminated = %+v", end)
	}
	remove(t, a, p)
}

// TestTerminationMessage: last words, from the file and from the log.
func TestTerminationMessage(t *testing.T) {
	h := newHost(t)
	a := h.start(t)
	p := busyboxPod("words", "echo farewell > /dev/termination-log; exit 3", "echo from the log; exit 4")
	p.Spec.RestartPolicy = corev1.RestartPolicyNever
	p.Spec.Containers[1].TerminationMessagePolicy = corev1.TerminationMessageFallbackToLogsOnError
	a.pods.Update(p)
	st := h.waitFor(t, p.UID, "failed", func(st corev1.PodStatus) bool { return st.Phase == corev1.PodFailed })
	for i, want := range []struct {
		code int32
		text string
	}{{3, "farewell"}, {4, "from the log"}} {
		end := st.ContainerStatuses[i].State.Terminated
		if end == nil || end.ExitCode != want.code || !strings.Contains(end.Message, want.text) {
			t.Errorf("container %d: %+v", i, end)
		}
	}
	remove(t, a, p)
	nothingLeft(t, a)
}

func remove(t *testing.T, a *agent, p *corev1.Pod) {
	t.Helper()
	a.pods.Remove(p.UID)
	a.waitGone(t, p.UID)
}

// BenchmarkCreateToRunning is the agent's part of the budget "one pod, create →
// Running": from the pod's arrival to the status that says Running.
func BenchmarkCreateToRunning(b *testing.B) {
	h := newHost(b)
	a := h.start(b)
	var total time.Duration
	for b.Loop() {
		p := busyboxPod("bench", "sleep 1000")
		p.Spec.Containers[0].Command = []string{"sleep", "1000"}
		zero := int64(0)
		p.Spec.TerminationGracePeriodSeconds = &zero
		began := time.Now()
		a.pods.Update(p)
		h.waitFor(b, p.UID, "running", func(st corev1.PodStatus) bool { return st.Phase == corev1.PodRunning })
		total += time.Since(began)
		b.StopTimer()
		a.pods.Remove(p.UID)
		h.waitGone(b, p.UID)
		b.StartTimer()
	}
	b.ReportMetric(float64(total.Milliseconds())/float64(b.N), "ms/pod")
}
