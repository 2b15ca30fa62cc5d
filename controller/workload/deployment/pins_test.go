package deployment

import (
	"slices"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"lighter.dev/lighter/api/v1alpha1"
)

const shop = "docker.io/library/shop:latest"

func TestPin(t *testing.T) {
	ready := func(digest string) imageState { return imageState{found: true, digest: digest} }
	unbuilt := imageState{found: true, advice: "build it"}
	tests := []struct {
		name     string
		image    imageState
		explicit string // pin in the Deployment's template
		observed string // annotation; "-" for none
		pin      string
		recorded string // "-" for none
		overtook bool
		waits    bool
	}{
		{"no such image", imageState{}, "", "-", "", "-", false, false},
		{"no such image, pinned by hand", imageState{}, "old", "-", "old", "-", false, false},
		{"first sight", ready("one"), "", "-", "one", "one", false, false},
		{"nothing new", ready("one"), "", "one", "one", "one", false, false},
		{"built again", ready("two"), "", "one", "two", "two", false, false},
		{"rolled back, annotation replaced by kubectl", ready("two"), "one", "-", "one", "two", false, false},
		{"rolled back", ready("two"), "one", "two", "one", "two", false, false},
		{"rolled back, then built again", ready("three"), "one", "two", "three", "three", true, false},
		{"never built", unbuilt, "", "-", "", "", false, true},
		{"never built, pinned by hand", unbuilt, "old", "-", "old", "", false, false},
		{"first build ends the pin by hand", ready("one"), "old", "", "one", "one", true, false},
		{"image deleted while its pods run", imageState{}, "", "one", "one", "one", false, false},
		{"image made anew and not built", unbuilt, "", "one", "one", "one", false, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			d := &appsv1.Deployment{}
			d.Spec.Template.Spec.Containers = []corev1.Container{{Image: "shop"}, {Image: "docker.io/library/shop:latest"}, {Image: "else@sha256:0123456789012345678901234567890123456789012345678901234567890123"}}
			if test.explicit != "" {
				d.Spec.Template.Annotations = map[string]string{v1alpha1.DigestsAnnotation: digests{shop: test.explicit}.String()}
			}
			if test.observed != "-" {
				d.Annotations = map[string]string{observedAnnotation: `{"` + shop + `":"` + test.observed + `"}`}
			}
			got := pin(d, func(ref string) imageState {
				if ref != shop {
					t.Errorf("looked %q up", ref)
				}
				return test.image
			})
			if got.pins[shop] != test.pin {
				t.Errorf("pinned to %q, want %q", got.pins[shop], test.pin)
			}
			recorded, known := got.observed[shop]
			if want := test.recorded != "-"; known != want || want && recorded != test.recorded {
				t.Errorf("recorded %q (%v), want %q", recorded, known, test.recorded)
			}
			if got.overtook != test.overtook || (len(got.waiting) > 0) != test.waits {
				t.Errorf("overtook %v, waiting %q", got.overtook, got.waiting)
			}
			if _, left := got.explicit[shop]; left && test.overtook {
				t.Error("the overtaken pin is still explicit")
			}
		})
	}
}

func TestPinsArePartOfTheTemplate(t *testing.T) {
	d := &appsv1.Deployment{}
	d.Spec.Template.Spec.Containers = []corev1.Container{{Image: "shop"}}
	one, two := pinned(d, digests{shop: "one"}), pinned(d, digests{shop: "two"})
	hashOne, _ := templateHash(&one.Spec.Template, nil)
	hashTwo, _ := templateHash(&two.Spec.Template, nil)
	if hashOne == hashTwo || sameTemplate(&one.Spec.Template, &two.Spec.Template) {
		t.Error("two digests make one template")
	}
	if !sameTemplate(&pinned(d, nil).Spec.Template, &d.Spec.Template) || len(d.Spec.Template.Annotations) != 0 {
		t.Error("pinning nothing changes the template")
	}
}

func TestUnreadablePinsCountAsNone(t *testing.T) {
	if got := parseDigests("{not json"); len(got) != 0 {
		t.Errorf("parsed %v", got)
	}
	if got := digests(nil).String(); got != "" {
		t.Errorf("no digests are written as %q", got)
	}
}

func TestImageRefs(t *testing.T) {
	spec := &corev1.PodSpec{
		InitContainers: []corev1.Container{{Image: "b:1"}},
		Containers:     []corev1.Container{{Image: "a"}, {Image: "b:1"}, {Image: "NOT VALID"}},
	}
	want := []string{"docker.io/library/a:latest", "docker.io/library/b:1"}
	if got := imageRefs(spec); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
