package containers

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"lighter.dev/lighter/api/agentapi"
	"lighter.dev/lighter/api/v1alpha1"
)

func cluster(objects ...*corev1.Pod) (*Cluster, *bytes.Buffer) {
	var out bytes.Buffer
	kube := fake.NewClientset()
	for _, pod := range objects {
		pod.Namespace = "shop"
		_ = kube.Tracker().Add(pod)
	}
	return &Cluster{Kube: kube, Namespace: "shop", In: strings.NewReader(""), Out: &out, Err: io.Discard}, &out
}

func ours(pod *corev1.Pod) {
	pod.Annotations = map[string]string{v1alpha1.ContainerAnnotation: `{"restart":"no"}`, v1alpha1.RunAnnotation: `{"number":4}`}
}

func TestFindAndRename(t *testing.T) {
	c, _ := cluster(podWith(corev1.ContainerStatus{State: runs()}, ours))
	if err := c.Rename(t.Context(), "web", "shop"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"web", "shop"} {
		if pod, err := c.find(t.Context(), name); err != nil || pod.Name != "web" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := c.Rename(t.Context(), "web", "shop"); err == nil || !strings.Contains(err.Error(), "taken") {
		t.Errorf("a name that is taken: %v", err)
	}
	if err := c.Rename(t.Context(), "web", "No Name"); err == nil {
		t.Error("a name that is none")
	}
	if _, err := c.find(t.Context(), "nobody"); err == nil || !strings.Contains(err.Error(), "lighter ps -a") {
		t.Errorf("nobody: %v", err)
	}
}

// TestRequests: what the agent is asked, and what is not asked at all.
func TestRequests(t *testing.T) {
	running, ended := corev1.ContainerStatus{State: runs()}, corev1.ContainerStatus{State: over(0, "Completed", "")}
	request := func(t *testing.T, c *Cluster) v1alpha1.RunRequest {
		pod, err := c.find(t.Context(), "web")
		if err != nil {
			t.Fatal(err)
		}
		var run v1alpha1.RunRequest
		if err := json.Unmarshal([]byte(pod.Annotations[v1alpha1.RunAnnotation]), &run); err != nil {
			t.Fatal(err)
		}
		return run
	}
	soon := func() context.Context {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		t.Cleanup(cancel)
		return ctx // nobody carries it out here
	}
	seconds := int64(3)
	c, out := cluster(podWith(running, ours))
	if err := c.Stop(soon(), []string{"web"}, &seconds); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("stop: %v", err)
	}
	if run := request(t, c); run.Number != 5 || !run.Stopped || *run.GraceSeconds != 3 {
		t.Errorf("stop asks for %+v", run)
	}
	if err := c.Kill(soon(), []string{"web"}, "kill"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("kill: %v", err)
	}
	if run := request(t, c); run.Number != 6 || run.Signal != "SIGKILL" || *run.GraceSeconds != 0 {
		t.Errorf("kill asks for %+v", run)
	}
	if err := c.Start(t.Context(), []string{"web"}); err != nil || out.String() != "web\n" {
		t.Errorf("start of what runs: %v, %s", err, out)
	}
	if run := request(t, c); run.Number != 6 {
		t.Errorf("start of what runs asks for %+v", run)
	}
	c, _ = cluster(podWith(ended, ours))
	if err := c.Stop(t.Context(), []string{"web"}, nil); err != nil {
		t.Errorf("stop of what has ended: %v", err)
	}
	if err := c.Kill(t.Context(), []string{"web"}, "KILL"); err == nil || !strings.Contains(err.Error(), "not running") {
		t.Errorf("kill of what has ended: %v", err)
	}
	if run := request(t, c); run.Number != 4 {
		t.Errorf("it was asked for %+v", run)
	}
}

// TestNotOurs: a pod that would not stay stopped says what to do instead.
func TestNotOurs(t *testing.T) {
	yes := true
	owned := func(kind, name string) func(*corev1.Pod) {
		return func(pod *corev1.Pod) {
			ours(pod)
			pod.OwnerReferences = []metav1.OwnerReference{{Kind: kind, Name: name, Controller: &yes}}
		}
	}
	running := corev1.ContainerStatus{State: runs()}
	c, _ := cluster(podWith(running, owned("ReplicaSet", "web-1")))
	set := &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Name: "web-1", Namespace: "shop", OwnerReferences: []metav1.OwnerReference{{Kind: "Deployment", Name: "web", Controller: &yes}}}}
	if _, err := c.Kube.AppsV1().ReplicaSets("shop").Create(t.Context(), set, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := c.Stop(t.Context(), []string{"web"}, nil); err == nil || !strings.Contains(err.Error(), "lighter scale Deployment/web --replicas") {
		t.Errorf("of a Deployment: %v", err)
	}
	if err := c.Remove(t.Context(), []string{"web"}, true); err == nil || !strings.Contains(err.Error(), "lighter delete Deployment/web") {
		t.Errorf("rm of a Deployment's: %v", err)
	}
	c, _ = cluster(podWith(running))
	if err := c.Start(t.Context(), []string{"web"}); err == nil || !strings.Contains(err.Error(), `not made by "lighter run"`) {
		t.Errorf("of nobody: %v", err)
	}
	if err := c.Remove(t.Context(), []string{"web"}, false); err == nil || !strings.Contains(err.Error(), "stop it first") {
		t.Errorf("rm of what runs: %v", err)
	}
}

// TestPullSecret: the login goes with the pod, and away with it.
func TestPullSecret(t *testing.T) {
	c, _ := cluster()
	c.Logins = func(image string) ([]agentapi.Credential, error) {
		if image != "reg:5000/box" {
			return nil, nil
		}
		return []agentapi.Credential{{Host: "reg:5000", Username: "ann", Password: "x"}}, nil
	}
	for image, want := range map[string]int{"reg:5000/box": 1, "box": 0} {
		pod, err := Options{Image: image, Name: "p" + strings.Repeat("x", want)}.Pod("shop")
		if err != nil {
			t.Fatal(err)
		}
		made, err := c.create(t.Context(), pod)
		if err != nil || len(made.Spec.ImagePullSecrets) != want {
			t.Errorf("%s: %v, %v", image, made, err)
		}
	}
	secrets, err := c.Kube.CoreV1().Secrets("shop").List(t.Context(), metav1.ListOptions{})
	if err != nil || len(secrets.Items) != 1 || len(secrets.Items[0].OwnerReferences) != 1 || !strings.Contains(string(secrets.Items[0].Data[corev1.DockerConfigJsonKey]), `"username":"ann"`) {
		t.Errorf("%+v, %v", secrets, err)
	}
}

func TestList(t *testing.T) {
	up := podWith(corev1.ContainerStatus{State: runs()})
	down := podWith(corev1.ContainerStatus{State: over(1, "Error", "")}, func(p *corev1.Pod) { p.Name = "old" })
	c, out := cluster(up, down)
	for _, tt := range []struct {
		o    ListOptions
		want string
	}{
		{ListOptions{Quiet: true, Format: "table"}, "web\n"},
		{ListOptions{Quiet: true, All: true, Format: "table"}, "old\nweb\n"},
	} {
		out.Reset()
		if err := c.List(t.Context(), tt.o); err != nil || out.String() != tt.want {
			t.Errorf("%+v: %q, %v", tt.o, out, err)
		}
	}
	out.Reset()
	if err := c.List(t.Context(), ListOptions{Format: "json"}); err != nil || !strings.Contains(out.String(), `"Names":"web"`) {
		t.Errorf("%s, %v", out, err)
	}
	if err := c.List(t.Context(), ListOptions{Format: "xml"}); err == nil {
		t.Error("a format that is none")
	}
}
