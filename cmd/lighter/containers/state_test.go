package containers

import (
	"errors"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"lighter.dev/lighter/api/agentapi"
	"lighter.dev/lighter/api/v1alpha1"
)

var now = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

func at(ago time.Duration) metav1.Time { return metav1.Time{Time: now.Add(-ago)} }

// podWith has one container with this status.
func podWith(status corev1.ContainerStatus, change ...func(*corev1.Pod)) *corev1.Pod {
	status.Name = mainContainer
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "web", CreationTimestamp: at(time.Hour)},
		Spec:       corev1.PodSpec{NodeName: "host-1", Containers: []corev1.Container{{Name: mainContainer, Image: "box", Command: []string{"sleep"}, Args: []string{"1d"}}}},
		Status:     corev1.PodStatus{Phase: corev1.PodRunning, ContainerStatuses: []corev1.ContainerStatus{status}},
	}
	for _, f := range change {
		f(pod)
	}
	return pod
}

func runs() corev1.ContainerState {
	return corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: at(3 * time.Minute)}}
}

func over(code int32, reason, message string) corev1.ContainerState {
	return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code, Reason: reason, Message: message, FinishedAt: at(5 * time.Second), ContainerID: "new"}}
}

func waits(reason, message string) corev1.ContainerState {
	return corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}
}

func nowhere(pod *corev1.Pod) {
	pod.Spec.NodeName, pod.Status.ContainerStatuses, pod.Status.Phase = "", nil, corev1.PodPending
}

func TestStages(t *testing.T) {
	unschedulable := func(pod *corev1.Pod) {
		nowhere(pod)
		pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonUnschedulable, Message: "no free ports"}}
	}
	refused := func(pod *corev1.Pod) {
		pod.Status = corev1.PodStatus{Phase: corev1.PodFailed, Reason: "NodePorts", Message: "port is in use"}
	}
	for _, tt := range []struct {
		name  string
		pod   *corev1.Pod
		stage stage
		doing string
		code  int
	}{
		{"no host", podWith(corev1.ContainerStatus{}, nowhere), underWay, "waiting for a host", 0},
		{"no host can", podWith(corev1.ContainerStatus{}, unschedulable), 0, "no free ports", 125},
		{"its host does not want it", podWith(corev1.ContainerStatus{}, refused), 0, "NodePorts: port is in use", 125},
		{"its host has not heard", podWith(corev1.ContainerStatus{}), underWay, "waiting for host host-1", 0},
		{"preparing", podWith(corev1.ContainerStatus{State: waits("ContainerCreating", "")}), underWay, "preparing", 0},
		{"no image", podWith(corev1.ContainerStatus{State: waits("ErrImagePull", "not found")}), 0, "ErrImagePull: not found", 125},
		{"bad name", podWith(corev1.ContainerStatus{Image: "Box", State: waits("InvalidImageName", "")}), 0, "InvalidImageName: image Box", 125},
		{"awaits", podWith(corev1.ContainerStatus{ContainerID: "new", State: waits(v1alpha1.ReasonAwaitsClient, "")}), awaits, "", 0},
		{"runs", podWith(corev1.ContainerStatus{ContainerID: "new", State: runs()}), begun, "", 0},
		{"ran", podWith(corev1.ContainerStatus{ContainerID: "new", State: over(0, "Completed", "")}), begun, "", 0},
		{"crashes", podWith(corev1.ContainerStatus{ContainerID: "new", State: waits("CrashLoopBackOff", "")}), begun, "", 0},
		{"no such command", podWith(corev1.ContainerStatus{ContainerID: "new", State: over(128, "StartError", "exec: not found")}), 0, "not found", 127},
		{"no command", podWith(corev1.ContainerStatus{ContainerID: "new", State: over(128, "StartError", "permission denied")}), 0, "denied", 126},
		{"the attempt before runs", podWith(corev1.ContainerStatus{ContainerID: "old", State: runs()}), underWay, "", 0},
		{"the attempt before ended", podWith(corev1.ContainerStatus{ContainerID: "old", State: over(1, "Error", "")}), underWay, "", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			stage, doing, err := stageOf(tt.pod, "old")
			var refused *refusal
			if errors.As(err, &refused) {
				doing = err.Error()
				if refused.code != tt.code {
					t.Errorf("code %d", refused.code)
				}
			}
			if (err != nil) != (tt.code != 0) || stage != tt.stage || !strings.Contains(doing, tt.doing) {
				t.Errorf("stage %v, %q, error %v", stage, doing, err)
			}
		})
	}
}

func TestRows(t *testing.T) {
	probed := func(pod *corev1.Pod) { pod.Spec.Containers[0].ReadinessProbe = &corev1.Probe{} }
	yes := true
	for want, pod := range map[string]*corev1.Pod{
		"Up 3 minutes":                    podWith(corev1.ContainerStatus{State: runs()}),
		"Up 3 minutes (healthy)":          podWith(corev1.ContainerStatus{State: runs(), Started: &yes, Ready: true}, probed),
		"Up 3 minutes (unhealthy)":        podWith(corev1.ContainerStatus{State: runs(), Started: &yes}, probed),
		"Up 3 minutes (health: starting)": podWith(corev1.ContainerStatus{State: runs()}, probed),
		"Exited (137) 5 seconds ago":      podWith(corev1.ContainerStatus{State: over(137, "Stopped", "")}),
		"Restarting (1) 5 seconds ago":    podWith(corev1.ContainerStatus{State: waits("CrashLoopBackOff", ""), LastTerminationState: over(1, "Error", "")}),
		"Created":                         podWith(corev1.ContainerStatus{State: waits(v1alpha1.ReasonAwaitsClient, "")}),
		"Created (ErrImagePull)":          podWith(corev1.ContainerStatus{State: waits("ErrImagePull", "")}),
		"Created (waits for a host)":      podWith(corev1.ContainerStatus{}, nowhere),
		"Removal In Progress":             podWith(corev1.ContainerStatus{State: runs()}, func(p *corev1.Pod) { p.DeletionTimestamp = &metav1.Time{Time: now} }),
		"Refused (OutOfmemory)":           podWith(corev1.ContainerStatus{}, func(p *corev1.Pod) { p.Status = corev1.PodStatus{Phase: corev1.PodFailed, Reason: "OutOfmemory"} }),
	} {
		rows := rowsOf(pod, now)
		if len(rows) != 1 || rows[0].Status != want || rows[0].Names != "web" || rows[0].Command != "sleep 1d" || rows[0].Host != pod.Spec.NodeName {
			t.Errorf("%+v, want %q", rows, want)
		}
	}
	two := podWith(corev1.ContainerStatus{}, func(p *corev1.Pod) {
		p.Annotations = map[string]string{v1alpha1.ContainerNameAnnotation: "shop"}
		p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "side", Ports: []corev1.ContainerPort{{ContainerPort: 80, HostPort: 8080}, {ContainerPort: 53, Protocol: corev1.ProtocolUDP}}})
	})
	if rows := rowsOf(two, now); len(rows) != 2 || rows[1].Names != "shop/side" || rows[1].Ports != "0.0.0.0:8080->80/tcp, 53/udp" {
		t.Errorf("%+v", rows)
	}
}

// TestUsages: what is said of each container, by the names and limits of its pod.
func TestUsages(t *testing.T) {
	pod := podWith(corev1.ContainerStatus{State: runs()}, func(p *corev1.Pod) {
		p.Spec.NodeName = "host-1"
		p.Spec.Containers[0].Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("64Mi")}
	})
	main := pod.Spec.Containers[0].Name
	stats := []agentapi.ContainerUsage{{Container: main, At: now, CPU: time.Second, Memory: 7}}
	want := usage{name: "web", host: "host-1", at: now, cpu: time.Second, memory: 7, limit: 64 << 20}
	if got := usages(pod, stats); len(got) != 1 || got[0] != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{Name: "side"})
	got := usages(pod, append(stats, agentapi.ContainerUsage{Container: "side"}))
	if len(got) != 2 || got[0].name != "web/"+main || got[1].name != "web/side" || got[1].limit != 0 {
		t.Errorf("%+v", got)
	}
}

func TestPercentCPU(t *testing.T) {
	look := func(at, cpu time.Duration) usage { return usage{at: now.Add(at), cpu: cpu} }
	for _, tt := range []struct {
		before, now usage
		want        float64
	}{
		{look(0, 0), look(time.Second, time.Second/2), 50},
		{look(0, time.Minute), look(2*time.Second, time.Minute+4*time.Second), 200},
		{look(0, time.Minute), look(time.Second, 0), 0}, // restarted
		{look(0, 0), look(0, time.Second), 0},
	} {
		if got := percentCPU(tt.before, tt.now); got != tt.want {
			t.Errorf("%v, want %v", got, tt.want)
		}
	}
}

func TestFailed(t *testing.T) {
	well, badly, running := over(0, "Completed", ""), over(2, "Error", ""), runs()
	crashes := corev1.ContainerStatus{Name: "loops", State: waits("CrashLoopBackOff", ""), LastTerminationState: over(1, "Error", "")}
	crashes.LastTerminationState.Terminated.FinishedAt = at(time.Second)
	pod := podWith(corev1.ContainerStatus{}, func(p *corev1.Pod) {
		p.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: "init", State: well}}
		p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "bad", State: badly}, crashes, {Name: "up", State: running}}
	})
	for name, want := range map[string]string{"": "loops", "bad": "bad", "init": "init", "up": "", "nobody": ""} {
		if got, err := failed(pod, name); got != want || (err != nil) != (want == "") {
			t.Errorf("%q: %q, %v, want %q", name, got, err, want)
		}
	}
	pod.Status.ContainerStatuses = pod.Status.ContainerStatuses[2:]
	if _, err := failed(pod, ""); err == nil || !strings.Contains(err.Error(), "lighter exec") {
		t.Errorf("none: %v", err)
	}
}

func TestEnd(t *testing.T) {
	last := corev1.ContainerStatus{State: runs(), LastTerminationState: over(3, "Error", "")}
	if end := endOf(podWith(last), "old"); end == nil || end.ExitCode != 3 {
		t.Errorf("of an attempt that was followed by another: %+v", end)
	}
	if end := endOf(podWith(last), "new"); end != nil {
		t.Errorf("of the attempt before: %+v", end)
	}
}
