package status

import (
	"net/netip"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
)

func running(name string) corev1.ContainerStatus {
	yes := true
	return corev1.ContainerStatus{Name: name, Ready: true, Started: &yes, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}
}

func waiting(name string) corev1.ContainerStatus {
	return corev1.ContainerStatus{Name: name, State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ContainerCreating"}}}
}

func over(name string, code int32) corev1.ContainerStatus {
	return corev1.ContainerStatus{Name: name, Ready: code == 0, State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code}}}
}

func crashed(name string) corev1.ContainerStatus {
	st := waiting(name)
	st.LastTerminationState.Terminated = &corev1.ContainerStateTerminated{ExitCode: 1}
	return st
}

type list []corev1.ContainerStatus

func TestPhase(t *testing.T) {
	always := corev1.ContainerRestartPolicyAlways
	for _, tt := range []struct {
		name       string
		policy     corev1.RestartPolicy
		init, main list
		stopped    bool
		want       corev1.PodPhase
	}{
		{"new", corev1.RestartPolicyAlways, nil, list{waiting("a"), waiting("b")}, false, corev1.PodPending},
		{"one still starts", corev1.RestartPolicyAlways, nil, list{running("a"), waiting("b")}, false, corev1.PodPending},
		{"all run", corev1.RestartPolicyAlways, nil, list{running("a"), running("b")}, false, corev1.PodRunning},
		{"crash loop", corev1.RestartPolicyAlways, nil, list{crashed("a"), crashed("b")}, false, corev1.PodRunning},
		{"one ended, one runs", corev1.RestartPolicyNever, nil, list{over("a", 1), running("b")}, false, corev1.PodRunning},
		{"ended, not yet stopped", corev1.RestartPolicyNever, nil, list{over("a", 0), over("b", 0)}, false, corev1.PodRunning},
		{"succeeded", corev1.RestartPolicyNever, nil, list{over("a", 0), over("b", 0)}, true, corev1.PodSucceeded},
		{"failed", corev1.RestartPolicyNever, nil, list{over("a", 0), over("b", 2)}, true, corev1.PodFailed},
		{"init runs", corev1.RestartPolicyAlways, list{running("i"), waiting("s")}, list{waiting("a"), waiting("b")}, false, corev1.PodPending},
		{"init failed for good", corev1.RestartPolicyNever, list{over("i", 1), waiting("s")}, list{waiting("a"), waiting("b")}, true, corev1.PodFailed},
		{"init will be retried", corev1.RestartPolicyAlways, list{crashed("i"), waiting("s")}, list{waiting("a"), waiting("b")}, false, corev1.PodPending},
		{"sidecar runs, mains too", corev1.RestartPolicyAlways, list{over("i", 0), running("s")}, list{running("a"), running("b")}, false, corev1.PodRunning},
		{"sidecar restarts", corev1.RestartPolicyAlways, list{over("i", 0), crashed("s")}, list{running("a"), running("b")}, false, corev1.PodRunning},
		{"sidecar outlives the mains", corev1.RestartPolicyNever, list{over("i", 0), running("s")}, list{over("a", 0), over("b", 0)}, false, corev1.PodRunning},
	} {
		t.Run(tt.name, func(t *testing.T) {
			pod := &corev1.Pod{Spec: corev1.PodSpec{RestartPolicy: tt.policy, Containers: []corev1.Container{{Name: "a"}, {Name: "b"}}}}
			if tt.init != nil {
				pod.Spec.InitContainers = []corev1.Container{{Name: "i"}, {Name: "s", RestartPolicy: &always}}
			}
			if got := Phase(pod, tt.init, tt.main, tt.stopped); got != tt.want {
				t.Errorf("phase = %s, want %s", got, tt.want)
			}
		})
	}
}

func TestComputeConditions(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	gate := corev1.PodConditionType("example.com/gate")
	pod := &corev1.Pod{Spec: corev1.PodSpec{
		Containers: []corev1.Container{{Name: "a"}}, ReadinessGates: []corev1.PodReadinessGate{{ConditionType: gate}},
	}}
	in := Input{Pod: pod, Main: list{running("a")}, NetworkReady: true, PodIPs: []netip.Addr{netip.MustParseAddr("10.42.0.2")}, StartTime: now}
	first := Compute(in, now)
	if got := cond(first, corev1.PodReady); got.Status != corev1.ConditionFalse || got.Reason != "ReadinessGatesNotReady" {
		t.Errorf("ready = %+v", got)
	}
	if got := cond(first, corev1.ContainersReady); got.Status != corev1.ConditionTrue {
		t.Errorf("containers ready = %+v", got)
	}
	// The gate opens; only Ready changes its transition time.
	pod.Status = first
	pod.Status.Conditions = append(pod.Status.Conditions, corev1.PodCondition{Type: gate, Status: corev1.ConditionTrue})
	second := Compute(in, now.Add(time.Minute))
	if got := cond(second, corev1.PodReady); got.Status != corev1.ConditionTrue || !got.LastTransitionTime.Equal(&metav1.Time{Time: now.Add(time.Minute)}) {
		t.Errorf("ready = %+v", got)
	}
	if got := cond(second, corev1.PodInitialized); !got.LastTransitionTime.Equal(&metav1.Time{Time: now}) {
		t.Errorf("initialized = %+v", got)
	}
	if cond(second, gate) == nil {
		t.Error("the gate's condition was lost")
	}
	// There is no way back from Failed.
	pod.Status.Phase = corev1.PodFailed
	if got := Compute(in, now); got.Phase != corev1.PodFailed || cond(got, corev1.PodReady).Reason != "PodFailed" {
		t.Errorf("phase = %s, ready = %+v", got.Phase, cond(got, corev1.PodReady))
	}
}

func cond(st corev1.PodStatus, kind corev1.PodConditionType) *corev1.PodCondition {
	_, c := podutil.GetPodCondition(&st, kind)
	return c
}

// TestRefused: kubectl shows a waiting container's reason rather than the pod's.
func TestRefused(t *testing.T) {
	pod := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "a"}}}}
	in := Input{Pod: pod, Main: list{waiting("a")}, Failed: true, Stopped: true, Reason: "OutOfpods", Message: "no room"}
	st := Compute(in, time.Now())
	if st.Phase != corev1.PodFailed || st.Reason != "OutOfpods" || len(st.ContainerStatuses) != 0 {
		t.Errorf("%s, %s, containers %v", st.Phase, st.Reason, st.ContainerStatuses)
	}
	in.Main = list{over("a", 1)}
	if st = Compute(in, time.Now()); len(st.ContainerStatuses) != 1 {
		t.Errorf("a container that ran is not shown: %v", st)
	}
}
