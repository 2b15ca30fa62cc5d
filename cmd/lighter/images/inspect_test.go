package images

import (
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"lighter.dev/lighter/api/agentapi"
	"lighter.dev/lighter/api/v1alpha1"
)

func TestHistory(t *testing.T) {
	now := time.Unix(10_000, 0)
	made := now.Add(-time.Hour)
	details := agentapi.ImageDetails{
		Config: ocispec.Image{History: []ocispec.History{
			{Created: &made, CreatedBy: "COPY busybox /bin/busybox"},
			{CreatedBy: "ENV A=B", EmptyLayer: true},
			{CreatedBy: "RUN  a very long\tcommand that does not fit into the table by far", Comment: "buildkit"},
		}},
		Layers: []ocispec.Descriptor{{Size: 1_000_000}, {Size: 2000}, {Size: 3}},
	}
	want := []Step{
		{ID: "aaaaaaaaaaaa", CreatedSince: "N/A", Size: "3B", Bytes: 3},
		{ID: "<missing>", CreatedSince: "N/A", CreatedBy: "RUN a very long command that does not fit in…", Size: "2kB", Bytes: 2000, Comment: "buildkit"},
		{ID: "<missing>", CreatedSince: "N/A", CreatedBy: "ENV A=B", Size: "0B"},
		{ID: "<missing>", CreatedSince: "About an hour ago", CreatedAt: made.Format(time.RFC3339), CreatedBy: "COPY busybox /bin/busybox", Size: "1MB", Bytes: 1_000_000},
	}
	got := history(digestOf('a'), details, Format{Now: now})
	if len(got) != len(want) {
		t.Fatalf("%d steps, want %d", len(got), len(want))
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("%+v\nwant %+v", got[i], want[i])
		}
	}
}

func TestInspection(t *testing.T) {
	created := time.Unix(10_000, 0).UTC()
	details := agentapi.ImageDetails{
		Image:    agentapi.Image{Names: []string{"docker.io/library/shop:v1"}, Digest: digestOf('a'), Size: 7},
		Manifest: digestOf('b'),
		Config:   ocispec.Image{Created: &created, Author: "Ann", RootFS: ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{"sha256:1"}}},
	}
	view := inspection(Row{Object: "shop"}, details)
	if view.ID != digestOf('a') || view.RepoTags[0] != "shop:v1" || view.RepoDigests[0] != "shop@"+digestOf('a') || view.Created != "1970-01-01T02:46:40Z" ||
		view.RootFS.Layers[0] != "sha256:1" || view.Descriptor.Digest != digestOf('b') || view.Author != "Ann" || view.Object != "shop" {
		t.Errorf("%+v", view)
	}
}

func TestViewOf(t *testing.T) {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "default", Annotations: map[string]string{
			v1alpha1.ContainerAnnotation: `{"restart":"on-failure","maxRetries":3}`, v1alpha1.ContainerNameAnnotation: "renamed",
		}},
		Spec: corev1.PodSpec{NodeName: "host-1", RestartPolicy: corev1.RestartPolicyAlways, Containers: []corev1.Container{{
			Name: "c", Image: "shop", Command: []string{"sh"}, Args: []string{"-c", "true"},
			Env:          []corev1.EnvVar{{Name: "A", Value: "b"}, {Name: "SECRET", ValueFrom: &corev1.EnvVarSource{}}},
			Ports:        []corev1.ContainerPort{{ContainerPort: 80, HostPort: 8080}, {ContainerPort: 53, Protocol: corev1.ProtocolUDP}},
			Resources:    corev1.ResourceRequirements{Limits: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("64Mi"), corev1.ResourceCPU: resource.MustParse("500m")}},
			VolumeMounts: []corev1.VolumeMount{{Name: "data", MountPath: "/data", ReadOnly: true}},
		}}},
		Status: corev1.PodStatus{PodIP: "10.0.0.7", ContainerStatuses: []corev1.ContainerStatus{{Name: "c", ContainerID: "lighter://abc", RestartCount: 2}}},
	}
	ended := corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 137, Reason: "OOMKilled"}}
	waiting := corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff", Message: "back off"}}
	for want, status := range map[string]corev1.ContainerStatus{
		"running":    {State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}},
		"exited":     {State: ended},
		"restarting": {State: waiting, LastTerminationState: ended},
		"created":    {State: waiting},
	} {
		state := stateOf(pod, status)
		if state.Status != want || state.OOMKilled != (want == "exited" || want == "restarting") || (state.ExitCode == 137) != state.OOMKilled {
			t.Errorf("%+v, want %s", state, want)
		}
	}
	view := viewOf(pod, "c")
	if view.ID != "abc" || view.Name != "/renamed" || view.Path != "sh" || len(view.Args) != 2 || view.RestartCount != 2 || view.NetworkSettings.IPAddress != "10.0.0.7" {
		t.Errorf("%+v", view)
	}
	if c := view.HostConfig; c.RestartPolicy != (RestartPolicy{"on-failure", 3}) || c.Memory != 64<<20 || c.NanoCpus != 5e8 {
		t.Errorf("%+v", c)
	}
	if ports := view.NetworkSettings.Ports; len(ports) != 2 || ports["80/tcp"][0] != (PortBinding{"0.0.0.0", "8080"}) || ports["53/udp"] != nil {
		t.Errorf("%+v", ports)
	}
	if len(view.Config.Env) != 1 || view.Config.Env[0] != "A=b" || view.Mounts[0].RW {
		t.Errorf("%+v %+v", view.Config, view.Mounts)
	}
}

func TestUsageSums(t *testing.T) {
	answers := map[string]agentapi.Usage{
		"host-1": {Rows: []agentapi.UsageRow{{Type: "Images", Total: 2, Active: 1, Size: 100, Reclaimable: 50}, {Type: "Containers"}}},
		"host-2": {Rows: []agentapi.UsageRow{{Type: "Images", Total: 1, Size: 100}}},
	}
	sums := sumUsage(answers)
	if len(sums) != 2 || sums[0] != (agentapi.UsageRow{Type: "Images", Total: 3, Active: 1, Size: 200, Reclaimable: 50}) {
		t.Errorf("%+v", sums)
	}
	if got := reclaimable(sums[0]); got != "50B (25%)" {
		t.Error(got)
	}
}

// TestPruneAsks: without a terminal to ask on, nothing goes unless -f says so.
func TestPruneAsks(t *testing.T) {
	d := newDesk(t, map[string]*agent{"host-1": {}})
	if err := d.Prune(t.Context(), PruneOptions{}); err == nil {
		t.Error("did not ask")
	}
	wants(t, "question", PruneOptions{All: true, Until: time.Hour}.question(), "no container uses", "1h0m0s")
}
