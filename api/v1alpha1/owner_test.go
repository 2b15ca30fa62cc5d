package v1alpha1

import (
	"slices"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

func TestOwner(t *testing.T) {
	image := func(namespace, name string, age int64, tags ...string) Image {
		return Image{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: types.UID(name), CreationTimestamp: metav1.Unix(1000-age, 0)},
			Spec:       ImageSpec{Tags: tags},
		}
	}
	images := []Image{
		image("shop", "b", 1, "web:v1", "web:v2"), image("shop", "a", 1, "docker.io/library/web:v1"),
		image("shop", "young", 0, "web:v2"), image("other", "old", 9, "web:v1"), image("shop", "bad", 9, "WEB"),
	}
	for name, want := range map[string]string{
		"docker.io/library/web:v1": "a", // as old as b
		"docker.io/library/web:v2": "b",
		"docker.io/library/web:v3": "",
	} {
		got := ""
		if owner := Owner(images, "shop", name); owner != nil {
			got = owner.Name
		}
		if got != want {
			t.Errorf("%s belongs to %q, want %q", name, got, want)
		}
	}
	if left := images[0].TagsWithout("docker.io/library/web:v1"); !slices.Equal(left, []string{"web:v2"}) || len(images[0].Spec.Tags) != 2 {
		t.Errorf("%q are left of %q", left, images[0].Spec.Tags)
	}
}
