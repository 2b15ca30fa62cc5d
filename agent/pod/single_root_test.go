package pod_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"lighter.dev/lighter/api/v1alpha1"
)

// request gives a pod of "lighter run" its next request.
func request(t *testing.T, p *corev1.Pod, st corev1.PodStatus, run v1alpha1.RunRequest) *corev1.Pod {
	t.Helper()
	raw, err := json.Marshal(run)
	if err != nil {
		t.Fatal(err)
	}
	p = p.DeepCopy()
	p.Status = st
	p.Annotations = map[string]string{v1alpha1.ContainerAnnotation: `{"restart":"no"}`, v1alpha1.RunAnnotation: string(raw)}
	return p
}

// TestStopKeepsFiles: what a container has written is there after stop and
// start, also with an agent's death in between, and after an end of its own.
func TestStopKeepsFiles(t *testing.T) {
	h := newHost(t)
	a := h.start(t)
	p := busyboxPod("keeps", `if test -f /left; then cat /left; else echo first > /left; fi; echo life; test ! -f /leave || exit 5; `+serve)
	running := func(st corev1.PodStatus) bool { return isReady(st) }
	ended := func(st corev1.PodStatus) bool {
		return len(st.ContainerStatuses) == 1 && st.ContainerStatuses[0].State.Terminated != nil && !isReady(st)
	}
	p = request(t, p, corev1.PodStatus{}, v1alpha1.RunRequest{})
	a.pods.Update(p)
	st := h.waitFor(t, p.UID, "running", running)

	h.awaitLives(t, 1)
	p = request(t, p, st, v1alpha1.RunRequest{Number: 1, Stopped: true})
	a.pods.Update(p)
	st = h.waitFor(t, p.UID, "stopped", ended)
	if end := st.ContainerStatuses[0].State.Terminated; end.Reason != "Stopped" || st.Phase != corev1.PodRunning {
		t.Errorf("phase %s, %+v", st.Phase, end)
	}

	a.stop()
	a = h.start(t)
	p = request(t, p, st, v1alpha1.RunRequest{Number: 2})
	a.pods.Update(p)
	st = h.waitFor(t, p.UID, "running again", running)
	h.awaitLives(t, 2)
	if out, _, code, err := a.engine.ExecSync(t.Context(), current(t, a, p), []string{"sh", "-c", "cat /left; touch /leave"}, 0); err != nil || code != 0 || string(out) != "first\n" {
		t.Errorf("the file after stop and start: %q, exit code %d, %v", out, code, err)
	}

	// It ends by itself this time, and is started once more.
	p = request(t, p, st, v1alpha1.RunRequest{Number: 3})
	a.pods.Update(p)
	st = h.waitFor(t, p.UID, "ended", ended)
	if end := st.ContainerStatuses[0].State.Terminated; end.ExitCode != 5 || end.Reason != "Error" {
		t.Errorf("its own end: %+v", end)
	}
	h.awaitLives(t, 3)
	remove(t, a, p)
	nothingLeft(t, a)
}

// awaitLives waits until the container's log, which has to be one, tells of so
// many lives: being started is not having run far.
func (h *host) awaitLives(t *testing.T, want int) {
	t.Helper()
	var raw []byte
	deadline := time.Now().Add(30 * time.Second)
	for strings.Count(string(raw), "life") != want {
		if time.Now().After(deadline) {
			t.Fatalf("the log does not show %d lives: %s", want, raw)
		}
		time.Sleep(5 * time.Millisecond)
		logs, err := filepath.Glob(filepath.Join(h.dir, "log", "*", "c0", "*.log"))
		if err != nil || len(logs) > 1 {
			t.Fatalf("logs: %v, %v", logs, err)
		}
		if len(logs) == 1 {
			if raw, err = os.ReadFile(logs[0]); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// current is the ID of the newest attempt at the pod's container.
func current(t *testing.T, a *agent, p *corev1.Pod) string {
	t.Helper()
	picture, err := a.pods.Pod(p.Namespace, p.Name, p.UID)
	if err != nil {
		t.Fatal(err)
	}
	return picture.Containers[0].ID
}
