package objects

import (
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

func TestRefsOf(t *testing.T) {
	local := func(name string) corev1.LocalObjectReference { return corev1.LocalObjectReference{Name: name} }
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns"},
		Spec: corev1.PodSpec{
			ImagePullSecrets: []corev1.LocalObjectReference{local("pull"), local("")},
			InitContainers: []corev1.Container{{EnvFrom: []corev1.EnvFromSource{
				{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: local("init")}}, {SecretRef: &corev1.SecretEnvSource{LocalObjectReference: local("from")}},
			}}},
			Containers: []corev1.Container{{Env: []corev1.EnvVar{
				{Name: "A", Value: "plain"},
				{Name: "B", ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: local("key")}}},
				{Name: "C", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: local("pull")}}},
			}}},
			Volumes: []corev1.Volume{
				{VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: local("mounted")}}},
				{VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "mounted"}}},
				{VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
					{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: local("projected")}}, {Secret: &corev1.SecretProjection{LocalObjectReference: local("projected")}},
				}}}},
				{VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
			},
		},
	}
	var got []string
	for _, r := range RefsOf(pod) {
		got = append(got, string(r.Kind)+" "+r.Namespace+"/"+r.Name)
	}
	slices.Sort(got)
	want := []string{
		"ConfigMap ns/init", "ConfigMap ns/key", "ConfigMap ns/mounted", "ConfigMap ns/projected",
		"Secret ns/from", "Secret ns/mounted", "Secret ns/projected", "Secret ns/pull",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// told waits for a call of a pod's changed function.
func told(t *testing.T, changes <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-changes:
	case <-time.After(30 * time.Second):
		t.Fatalf("%s: the pod was not told", what)
	}
}

func watched(client *fake.Clientset, resource string) bool {
	return slices.ContainsFunc(client.Actions(), func(a clienttesting.Action) bool { return a.Matches("watch", resource) })
}

func TestCache(t *testing.T) {
	client := fake.NewClientset(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "there"}, Data: map[string]string{"k": "1"}})
	c := New(t.Context(), client, slog.New(slog.DiscardHandler))
	changes := make(chan struct{}, 100)
	c.Use("pod", []Ref{{ConfigMap, "ns", "there"}, {Secret, "ns", "late"}}, func() { changes <- struct{}{} })

	if cm, err := c.ConfigMap(t.Context(), "ns", "there"); err != nil || cm.Data["k"] != "1" {
		t.Fatalf("a ConfigMap that is there: %v, %v", cm, err)
	}
	if _, err := c.Secret(t.Context(), "ns", "late"); !apierrors.IsNotFound(err) {
		t.Fatalf("a Secret that is not there: %v, want NotFound", err)
	}
	for len(changes) > 0 {
		<-changes
	}
	if _, err := client.CoreV1().Secrets("ns").Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "late"}, Data: map[string][]byte{"k": []byte("2")}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	told(t, changes, "the Secret is born")
	if secret, err := c.Secret(t.Context(), "ns", "late"); err != nil || string(secret.Data["k"]) != "2" {
		t.Errorf("the Secret: %v, %v", secret, err)
	}
	// Of what goes between a list and its watch the fake would not tell.
	for deadline := time.Now().Add(30 * time.Second); !watched(client, "configmaps"); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("nobody watches the ConfigMap")
		}
	}
	if err := client.CoreV1().ConfigMaps("ns").Delete(t.Context(), "there", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	told(t, changes, "the ConfigMap is deleted")
	if _, err := c.ConfigMap(t.Context(), "ns", "there"); !apierrors.IsNotFound(err) {
		t.Errorf("a ConfigMap that was deleted: %v, want NotFound", err)
	}

	// Two pods, one watch; the last one closes it.
	c.Use("other", []Ref{{Secret, "ns", "late"}}, func() {})
	c.Release("pod")
	if _, err := c.Secret(t.Context(), "ns", "late"); err != nil {
		t.Errorf("what another pod uses: %v", err)
	}
	c.Release("other")
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.entries) != 0 || len(c.users) != 0 || len(c.notify) != 0 {
		t.Errorf("left after the last pod: %v, %v", c.entries, c.users)
	}
}
