package apply

import (
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func deployment(change func(*appsv1.Deployment)) *appsv1.Deployment {
	three := int32(3)
	d := &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "shop", Generation: 2},
		Spec:       appsv1.DeploymentSpec{Replicas: &three, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}},
		Status:     appsv1.DeploymentStatus{ObservedGeneration: 2, Replicas: 3, UpdatedReplicas: 3, AvailableReplicas: 3},
	}
	if change != nil {
		change(d)
	}
	return d
}

func pod(name, pins string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "shop", Labels: map[string]string{"app": "web"}, Annotations: map[string]string{"lighter.dev/digests": pins}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "web:v1"}}},
	}
}

func TestJudge(t *testing.T) {
	const oldPin, newPin = `{"docker.io/library/web:v1":"sha256:old"}`, `{"docker.io/library/web:v1":"sha256:new"}`
	built := digests{"docker.io/library/web:v1": "sha256:new"}
	tests := []struct {
		name   string
		d      *appsv1.Deployment
		pods   []*corev1.Pod
		built  digests
		done   bool
		line   string
		failed string
	}{
		{name: "rolled out", d: deployment(nil), done: true, line: "rolled out, 3 of 3 available"},
		{name: "not seen yet", d: deployment(func(d *appsv1.Deployment) { d.Generation = 3 }), line: "waiting for the controller"},
		{name: "starting", d: deployment(func(d *appsv1.Deployment) { d.Status.AvailableReplicas = 1 }), line: "3 of 3 updated, 1 available"},
		{name: "old pods left", d: deployment(func(d *appsv1.Deployment) { d.Status.Replicas = 4 }), line: "1 old"},
		{name: "half updated", d: deployment(func(d *appsv1.Deployment) { d.Status.UpdatedReplicas = 1 }), line: "1 of 3 updated"},
		{name: "scaled to none", d: deployment(func(d *appsv1.Deployment) {
			zero := int32(0)
			d.Spec.Replicas, d.Status = &zero, appsv1.DeploymentStatus{ObservedGeneration: 2}
		}), done: true, line: "0 of 0"},
		{name: "one by default", d: deployment(func(d *appsv1.Deployment) {
			d.Spec.Replicas, d.Status = nil, appsv1.DeploymentStatus{ObservedGeneration: 2, Replicas: 1, UpdatedReplicas: 1, AvailableReplicas: 1}
		}), done: true, line: "1 of 1"},
		{name: "paused", d: deployment(func(d *appsv1.Deployment) { d.Spec.Paused = true; d.Status.UpdatedReplicas = 0 }), done: true, line: "paused"},
		{name: "no progress", d: deployment(func(d *appsv1.Deployment) {
			d.Status.AvailableReplicas = 0
			d.Status.Conditions = []appsv1.DeploymentCondition{{Type: appsv1.DeploymentProgressing, Status: corev1.ConditionFalse, Reason: "ProgressDeadlineExceeded", Message: "too slow"}}
		}), line: "0 available", failed: "ProgressDeadlineExceeded: too slow"},
		{name: "new image, controller has not reacted", d: deployment(nil), pods: []*corev1.Pod{pod("a", oldPin), pod("b", oldPin)}, built: built, line: "2 pods still run the image's previous build"},
		{name: "new image, no pins at all", d: deployment(nil), pods: []*corev1.Pod{pod("a", "")}, built: built, line: "previous build"},
		{name: "new image rolled out", d: deployment(nil), pods: []*corev1.Pod{pod("a", newPin)}, built: built, done: true, line: "rolled out"},
		{name: "another image was built", d: deployment(nil), pods: []*corev1.Pod{pod("a", oldPin)}, built: digests{"docker.io/library/x:latest": "sha256:x"}, done: true, line: "rolled out"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got := judge(test.d, test.pods, test.built)
			if got.done != test.done || got.failed != test.failed || !strings.Contains(got.line, test.line) {
				t.Errorf("got done=%t failed=%q line=%q, want done=%t failed=%q and a line with %q", got.done, got.failed, got.line, test.done, test.failed, test.line)
			}
		})
	}
}

func TestProblems(t *testing.T) {
	waiting := func(reason, message string) corev1.ContainerStatus {
		return corev1.ContainerStatus{Name: "c", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}}
	}
	crash := waiting("CrashLoopBackOff", "back-off 10s")
	crash.RestartCount = 4
	crash.LastTerminationState.Terminated = &corev1.ContainerStateTerminated{ExitCode: 3, Reason: "Error"}
	tests := []struct {
		name       string
		status     corev1.PodStatus
		want, hint string // "" in want: no problem
	}{
		{name: "running", status: corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{{Name: "c", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}}},
		{name: "a normal start", status: corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{waiting("ContainerCreating", "")}}},
		{name: "image", status: corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{waiting("ImagePullBackOff", "no such image")}}, want: "pod/p: ImagePullBackOff: no such image", hint: "registry"},
		{name: "crash", status: corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{crash}}, want: "exit code 3 (Error), 4 restarts", hint: "lighter logs -n shop p -c c --previous"},
		{name: "init container", status: corev1.PodStatus{InitContainerStatuses: []corev1.ContainerStatus{waiting("CreateContainerConfigError", `configmap "x" not found`)}}, want: `configmap "x" not found`, hint: "create what"},
		{name: "nowhere to go", status: corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: "Unschedulable", Message: "0/3 nodes are available"}}}, want: "0/3 nodes are available", hint: "add a host"},
		{name: "failed", status: corev1.PodStatus{Phase: corev1.PodFailed, Reason: "Evicted", Message: "disk"}, want: "Evicted: disk", hint: "lighter describe pod"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got := problemsOf(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "shop"}, Status: test.status})
			if test.want == "" {
				if len(got) != 0 {
					t.Fatalf("got %v, want none", got)
				}
				return
			}
			if len(got) != 1 || !strings.Contains(got[0].String(), test.want) || !strings.Contains(got[0].hint, test.hint) {
				t.Errorf("got %+v, want one with %q and the hint %q", got, test.want, test.hint)
			}
		})
	}
}

func TestNodePortAddresses(t *testing.T) {
	node := func(ip string, ready corev1.ConditionStatus) corev1.Node {
		return corev1.Node{Status: corev1.NodeStatus{
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: ready}},
			Addresses:  []corev1.NodeAddress{{Type: corev1.NodeHostName, Address: "h"}, {Type: corev1.NodeInternalIP, Address: ip}},
		}}
	}
	nodes := []corev1.Node{node("10.0.0.1", corev1.ConditionFalse), node("10.0.0.2", corev1.ConditionTrue)}
	service := &corev1.Service{Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{
		{Port: 80, NodePort: 30080}, {Name: "https", Port: 8443, NodePort: 30443}, {Port: 53, NodePort: 30053, Protocol: corev1.ProtocolUDP}, {Port: 81},
	}}}
	got := strings.Join(nodePortAddresses(service, nodes), " ")
	if want := "http://10.0.0.2:30080 https://10.0.0.2:30443"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := nodePortAddresses(service, nodes[:1]); got != nil {
		t.Errorf("an address without a Ready host: %v", got)
	}
}
