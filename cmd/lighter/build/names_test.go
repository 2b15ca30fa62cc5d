package build

import (
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"lighter.dev/lighter/api/v1alpha1"
)

// image is an object; the later in a test's list, the younger.
func image(name string, tags ...string) v1alpha1.Image {
	return v1alpha1.Image{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "shop", UID: types.UID(name)},
		Spec:       v1alpha1.ImageSpec{Source: v1alpha1.ImageSource{Path: "/old"}, Tags: tags},
	}
}

func TestChoose(t *testing.T) {
	for _, test := range []struct {
		name   string
		images []v1alpha1.Image
		tags   []string
		object string
		exists bool
		now    []string // declared at once
		moves  []string // image name
	}{
		{"first build", nil, []string{"shop:v1", "team/shop"}, "shop-v1", false, []string{"shop:v1", "team/shop:latest"}, nil},
		{"twice the same", nil, []string{"shop", "docker.io/library/shop:latest"}, "shop", false, []string{"shop:latest"}, nil},
		{"built before", []v1alpha1.Image{image("shop", "shop:latest")}, []string{"shop"}, "shop", true, []string{"shop:latest"}, nil},
		{"declared by a manifest", []v1alpha1.Image{image("web", "guestbook:v1", "x:1")}, []string{"guestbook:v1"}, "web", true, []string{"guestbook:v1"}, nil},
		{"plain name is another's", []v1alpha1.Image{image("shop-v1", "other:latest")}, []string{"shop:v1"}, "shop-v1-", false, []string{"shop:v1"}, nil},
		{
			"latest moves on", []v1alpha1.Image{image("shop-v1", "shop:v1", "shop:latest")}, []string{"shop:v2", "shop:latest"},
			"shop-v2", false, []string{"shop:v2"}, []string{"shop-v1 shop:latest"},
		},
		{
			"two claim it, the younger is ours", []v1alpha1.Image{image("a", "x:1"), image("b", "shop:latest", "x:1")}, []string{"shop", "x:1"},
			"b", true, []string{"shop:latest"}, []string{"a x:1"},
		},
		{
			"two claim it, the older is ours", []v1alpha1.Image{image("b", "shop:latest", "x:1"), image("c", "x:1")}, []string{"shop", "x:1"},
			"b", true, []string{"shop:latest", "x:1"}, nil,
		},
	} {
		for i := range test.images {
			test.images[i].CreationTimestamp = metav1.NewTime(time.Unix(int64(i), 0))
		}
		got, err := choose(test.images, test.tags)
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
			continue
		}
		var moves []string
		for _, move := range got.moves {
			moves = append(moves, move.image.Name+" "+short(move.name))
		}
		if named := got.object == test.object || (strings.HasSuffix(test.object, "-") && strings.HasPrefix(got.object, test.object)); !named ||
			(got.existing != nil) != test.exists || !slices.Equal(got.tags, test.now) || !slices.Equal(moves, test.moves) {
			t.Errorf("%s: %+v, moves %v", test.name, got, moves)
		}
	}
	for _, bad := range []string{"Shop", "shop@sha256:" + strings.Repeat("0", 64), ""} {
		if _, err := choose(nil, []string{bad}); err == nil {
			t.Errorf("%q was taken as a name", bad)
		}
	}
}

func TestNamelessIsStable(t *testing.T) {
	a, b := nameless("/src\x00\x00"), nameless("/src2\x00\x00")
	if a == b || a != nameless("/src\x00\x00") {
		t.Errorf("%s, %s", a, b)
	}
	if plan, err := choose(nil, []string{a}); err != nil || plan.object != a {
		t.Errorf("%+v, %v", plan, err)
	}
}
