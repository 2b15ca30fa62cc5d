package images

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"lighter.dev/lighter/api/agentapi"
	"lighter.dev/lighter/api/v1alpha1"
)

// state lists the Image objects: name, tags, source.
func (d *desk) state(t *testing.T) []string {
	t.Helper()
	objects, err := d.objects(t.Context(), "default")
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, object := range objects {
		ref := ""
		if object.Spec.Source.Image != nil {
			ref = " = " + object.Spec.Source.Image.Ref
		}
		all = append(all, object.Name+": "+strings.Join(object.Spec.Tags, ",")+ref)
	}
	slices.Sort(all)
	return all
}

func TestDeclare(t *testing.T) {
	source := v1alpha1.ImageSource{Image: &v1alpha1.TagSource{Ref: "nginx@sha256:1"}}
	_, unique, err := v1alpha1.ObjectNames("shop:v1")
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		have *v1alpha1.Image
		want []string
		err  string
	}{
		{"new", nil, []string{"shop-v1: shop:v1 = nginx@sha256:1"}, ""},
		{"its object moves", imageObject("own", "", "shop:v1"), []string{"own: shop:v1 = nginx@sha256:1"}, ""},
		{"other names keep their meaning", imageObject("own", "", "shop:v1", "shop:v2"), []string{"own: shop:v2", "shop-v1: shop:v1 = nginx@sha256:1"}, ""},
		{"the plain name is taken", imageObject("shop-v1", "", "shop-v1"), []string{"shop-v1: shop-v1", unique + ": shop:v1 = nginx@sha256:1"}, ""},
		{"built from source", built(imageObject("own", "", "shop:v1")), []string{"own: shop:v1"}, "built from source by the Image \"own\""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			d := newDesk(t, nil)
			if test.have != nil {
				d = newDesk(t, nil, test.have)
			}
			_, err := d.declare(t.Context(), "shop:v1", source)
			if (err == nil) != (test.err == "") || (err != nil && !strings.Contains(err.Error(), test.err)) {
				t.Errorf("%v, want %q", err, test.err)
			}
			slices.Sort(test.want)
			if got := d.state(t); !slices.Equal(got, test.want) {
				t.Errorf("%q, want %q", got, test.want)
			}
		})
	}
}

func TestTag(t *testing.T) {
	d := newDesk(t, map[string]*agent{"host-1": {held: []agentapi.Image{{Names: []string{nginx}, Digest: digestOf('a')}}}})
	go func() { // the controller
		watch, err := d.Lighter.LighterV1alpha1().Images("default").Watch(t.Context(), metav1.ListOptions{})
		if err != nil {
			return
		}
		defer watch.Stop()
		for event := range watch.ResultChan() {
			image := event.Object.(*v1alpha1.Image).DeepCopy()
			if image.Status.Digest == "" {
				_, image.Status.Digest, _ = strings.Cut(image.Spec.Source.Image.Ref, "@")
				_, _ = d.Lighter.LighterV1alpha1().Images("default").UpdateStatus(t.Context(), image, metav1.UpdateOptions{})
			}
		}
	}()
	if err := d.Tag(t.Context(), "nginx", "reg.example:5000/web:v1"); err != nil {
		t.Fatal(err)
	}
	if got, want := d.state(t), []string{"reg-example-5000-web-v1: reg.example:5000/web:v1 = nginx:latest@" + digestOf('a')}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if err := d.Tag(t.Context(), "nginx:1", "x"); err == nil || !strings.Contains(err.Error(), "near it: nginx:latest") {
		t.Errorf("unknown source: %v", err)
	}
	if err := d.Tag(t.Context(), "nginx", "UPPER"); err == nil {
		t.Error("a bad name was taken")
	}
}

// TestContent: an object that gets no content does not stay, one that had some does.
func TestContent(t *testing.T) {
	d := newDesk(t, nil, imageObject("known", digestOf('a'), "known"))
	dir := t.TempDir()
	for _, content := range []string{"good", "broken"} {
		if err := os.WriteFile(filepath.Join(dir, content), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Import(t.Context(), filepath.Join(dir, "good"), "fresh", agentapi.Edits{}, false); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"new", "known"} {
		if err := d.Import(t.Context(), filepath.Join(dir, "broken"), name, agentapi.Edits{}, false); err == nil || !strings.Contains(err.Error(), "archive is damaged") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got, want := d.state(t), []string{"fresh: fresh:latest", "known: known"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	wants(t, "import", d.out.String(), digestOf('d'))
}

func TestContainerOf(t *testing.T) {
	pod := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "web"}, {Name: "log"}}, InitContainers: []corev1.Container{{Name: "init"}}}}
	annotated := pod.DeepCopy()
	annotated.Annotations = map[string]string{defaultContainer: "log"}
	tests := []struct {
		pod        *corev1.Pod
		name, want string
	}{{pod, "", "web"}, {pod, "log", "log"}, {pod, "init", "init"}, {pod, "none", ""}, {annotated, "", "log"}}
	for _, test := range tests {
		got, err := containerOf(test.pod, test.name)
		if got != test.want || (err == nil) != (test.want != "") {
			t.Errorf("%s: %s, %v, want %s", test.name, got, err, test.want)
		}
	}
}
