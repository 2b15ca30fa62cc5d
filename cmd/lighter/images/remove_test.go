package images

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"lighter.dev/lighter/api/agentapi"
	"lighter.dev/lighter/api/v1alpha1"
)

func podOf(name, image string, phase corev1.PodPhase) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: image}}},
		Status:     corev1.PodStatus{Phase: phase},
	}
}

func TestUsersOf(t *testing.T) {
	row := Row{Name: "docker.io/library/shop:v1", Digest: digestOf('a')}
	pinned := podOf("pinned", "shop:v1", corev1.PodRunning)
	pinned.Annotations = map[string]string{v1alpha1.DigestsAnnotation: fmt.Sprintf("{%q:%q}", row.Name, digestOf('b'))}
	tests := []struct {
		name string
		pod  *corev1.Pod
		row  Row
		want bool
	}{
		{"running", podOf("p", "shop:v1", corev1.PodRunning), row, true},
		{"about to", podOf("p", "docker.io/library/shop:v1", corev1.PodPending), row, true},
		{"ended", podOf("p", "shop:v1", corev1.PodSucceeded), row, false},
		{"another tag", podOf("p", "shop", corev1.PodRunning), row, false},
		{"another version", pinned, row, false},
		{"by digest, which the name does not matter to", podOf("p", "shop@"+row.Digest, corev1.PodRunning), row, false},
		{"by digest", podOf("p", "shop@"+row.Digest, corev1.PodRunning), Row{Digest: row.Digest}, true},
	}
	for _, test := range tests {
		if got := len(usersOf([]corev1.Pod{*test.pod}, test.row)) > 0; got != test.want {
			t.Errorf("%s: %t, want %t", test.name, got, test.want)
		}
	}
}

func TestRemove(t *testing.T) {
	tests := []struct {
		name, ref string
		force     bool
		out, err  string
		left      []string
	}{
		{"one of two names", "shop:v1", false, "Untagged: shop:v1\n", "", []string{"other: other:v1", "shop: shop:v2"}},
		{"the last name", "other:v1", false, "Untagged: other:v1\nDeleted: " + digestOf('b') + "\n", "", []string{"shop: shop:v1,shop:v2"}},
		{"in use", "shop:v2", false, "", "running pods use it: web", nil},
		{"in use, by force", "shop:v2", true, "Untagged: shop:v2\n", "", []string{"other: other:v1", "shop: shop:v1"}},
		{"a digest with two names", "aaaa", false, "", "several names (shop:v1, shop:v2)", nil},
		{"a digest with two names, by force", "aaaa", true, "Untagged: shop:v1\nUntagged: shop:v2\nDeleted: " + digestOf('a') + "\n", "", []string{"other: other:v1"}},
		{"pulled", "nginx", false, "Untagged: nginx:latest\nDeleted: sha256:gone\n", "", nil},
		{"unknown", "shop:v3", false, "", "near it: shop:v1, shop:v2", nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			held := []agentapi.Image{{Names: []string{nginx}, Digest: digestOf('c')}}
			agents := map[string]*agent{"host-1": {held: held}, "host-2": {held: held}, "host-3": {}}
			d := newDesk(t, agents, imageObject("shop", digestOf('a'), "shop:v1", "shop:v2"), imageObject("other", digestOf('b'), "other:v1"), podOf("web", "shop:v2", corev1.PodRunning))
			err := d.Remove(t.Context(), []string{test.ref}, test.force)
			if (err == nil) != (test.err == "") || (err != nil && !strings.Contains(err.Error(), test.err)) {
				t.Errorf("%v, want %q", err, test.err)
			}
			if d.out.String() != test.out {
				t.Errorf("prints %q, want %q", d.out.String(), test.out)
			}
			if test.left == nil {
				test.left = []string{"other: other:v1", "shop: shop:v1,shop:v2"}
			}
			if got := d.state(t); !slices.Equal(got, test.left) {
				t.Errorf("%q are left, want %q", got, test.left)
			}
			if gone := agents["host-1"].held == nil && agents["host-2"].held == nil; gone != (test.name == "pulled") {
				t.Errorf("the pulled image is gone: %t", gone)
			}
		})
	}
}

// TestRefusePulled: of a pulled image the last name stays while a container uses it;
// pods that merely name it do not matter.
func TestRefusePulled(t *testing.T) {
	const one, two = "docker.io/library/nginx:1", "docker.io/library/nginx:2"
	row := func(name string, containers int, hosts ...string) Row {
		return Row{Name: name, Digest: digestOf('c'), Containers: containers, Hosts: hosts}
	}
	tests := []struct {
		name string
		pod  string // the image that it runs
		rows []Row  // the first one goes
		text string // of the refusal
	}{
		{"nothing uses it, though a pod waits for it", one, []Row{row(one, 0, "host-1")}, ""},
		{"a pod uses it", one, []Row{row(one, 1, "host-1")}, "running pods use it: web"},
		{"a pod of another namespace does, or a container that was stopped", "other", []Row{row(one, 2, "host-1", "host-2")}, "2 containers of other pods use it, on host-1, host-2"},
		{"there is another name", one, []Row{row(one, 1, "host-1"), row(two, 1, "host-1", "host-2")}, ""},
		{"but not on every host", one, []Row{row(one, 1, "host-1", "host-2"), row(two, 1, "host-2")}, "running pods use it"},
		{"the other name is of another version", one, []Row{row(one, 1, "host-1"), {Name: two, Digest: digestOf('d'), Hosts: []string{"host-1"}}}, "running pods use it"},
	}
	for _, test := range tests {
		d := newDesk(t, nil, podOf("web", test.pod, corev1.PodRunning))
		err := d.refuse(t.Context(), test.rows, test.rows[0])
		if (err == nil) != (test.text == "") || err != nil && !strings.Contains(err.Error(), test.text) {
			t.Errorf("%s: %v, want %q", test.name, err, test.text)
		}
	}
}
