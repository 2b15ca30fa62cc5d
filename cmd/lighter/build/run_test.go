package build

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"lighter.dev/lighter/api/client/clientset/fake"
	"lighter.dev/lighter/api/v1alpha1"
)

// bench is a namespace, and a build that notes what it was asked for.
type bench struct {
	Options
	out   bytes.Buffer
	calls []string
}

func newBench(existing ...v1alpha1.Image) *bench {
	objects := make([]runtime.Object, 0, len(existing))
	for i := range existing {
		objects = append(objects, &existing[i])
	}
	b := &bench{}
	b.Options = Options{
		Images: fake.NewSimpleClientset(objects...).LighterV1alpha1().Images("shop"), Out: &b.out, Keep: true,
		Build: func(ctx context.Context, name string, _ *Context, again bool) (string, error) {
			image, err := b.Images.Get(ctx, name, metav1.GetOptions{})
			if err != nil {
				return "", err
			}
			b.calls = append(b.calls, fmt.Sprintf("build %s %v again=%v", name, image.Spec.Tags, again))
			return "sha256:1", nil
		},
	}
	return b
}

func (b *bench) tags(t *testing.T) map[string][]string {
	t.Helper()
	list, err := b.Images.List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]string{}
	for _, image := range list.Items {
		all[image.Name] = image.Spec.Tags
	}
	return all
}

func here() *Context { return &Context{Source: v1alpha1.ImageSource{Path: "/src"}, Dir: "/src"} }

func TestRun(t *testing.T) {
	b := newBench()
	b.Tags, b.Args, b.Target = []string{"shop:v1", "shop"}, []string{"A=1"}, "final"
	b.DigestFile = filepath.Join(t.TempDir(), "id")
	b.Push = func(_ context.Context, tag string) error {
		b.calls = append(b.calls, "push "+tag)
		return nil
	}
	for range 2 {
		if err := Run(t.Context(), here(), b.Options); err != nil {
			t.Fatal(err)
		}
	}
	one := []string{"build shop-v1 [shop:v1 shop:latest] again=false", "push shop:v1", "push shop:latest"}
	if want := slices.Concat(one, one); !slices.Equal(b.calls, want) {
		t.Errorf("calls %q", b.calls)
	}
	image, err := b.Images.Get(t.Context(), "shop-v1", metav1.GetOptions{})
	if err != nil || image.Spec.Source.Path != "/src" || image.Spec.Args["A"] != "1" || image.Spec.Target != "final" {
		t.Errorf("%+v, %v", image, err)
	}
	if text := "shop:v1 built: sha256:1\nshop:latest built: sha256:1\n"; b.out.String() != text+text {
		t.Errorf("printed %q", b.out.String())
	}
	if id, err := os.ReadFile(b.DigestFile); err != nil || string(id) != "sha256:1" {
		t.Errorf("--iidfile: %q, %v", id, err)
	}
}

// TestNamesMove: only after the build, and what has no name left goes.
func TestNamesMove(t *testing.T) {
	b := newBench(image("shop-v1", "shop:v1", "shop:latest"), image("x", "x:1"))
	b.Tags, b.Quiet = []string{"shop:v2", "shop:latest", "x:1"}, true
	if err := Run(t.Context(), here(), b.Options); err != nil {
		t.Fatal(err)
	}
	want := map[string][]string{"shop-v1": {"shop:v1"}, "shop-v2": {"shop:v2", "shop:latest", "x:1"}}
	if got := b.tags(t); !maps.EqualFunc(got, want, slices.Equal) {
		t.Errorf("names %v", got)
	}
	if want := []string{"build shop-v2 [shop:v2] again=false", "build shop-v2 [shop:v2 shop:latest x:1] again=true"}; !slices.Equal(b.calls, want) {
		t.Errorf("calls %q", b.calls)
	}
	if b.out.String() != "sha256:1\n" {
		t.Errorf("printed %q", b.out.String())
	}
}

// TestFailureMovesNothing, and keeps an Image that has a name.
func TestFailureMovesNothing(t *testing.T) {
	b := newBench(image("shop-v1", "shop:v1", "shop:latest"))
	broken := errors.New("exit code 3")
	b.Build = func(context.Context, string, *Context, bool) (string, error) { return "", broken }
	b.Tags = []string{"shop:v2", "shop:latest"}
	if err := Run(t.Context(), here(), b.Options); !errors.Is(err, broken) {
		t.Errorf("error %v", err)
	}
	if got := b.tags(t); !slices.Equal(got["shop-v1"], []string{"shop:v1", "shop:latest"}) || !slices.Equal(got["shop-v2"], []string{"shop:v2"}) {
		t.Errorf("names %v", got)
	}
	b.Tags = nil
	if err := Run(t.Context(), here(), b.Options); !errors.Is(err, broken) {
		t.Errorf("error %v", err)
	}
	if got := b.tags(t); len(got) != 2 {
		t.Errorf("a nameless build that failed left its Image: %v", got)
	}
}

// TestNameless: the result is called by its digest, or only goes elsewhere.
func TestNameless(t *testing.T) {
	b := newBench()
	for _, keep := range []bool{false, true, false} {
		had := len(b.tags(t))
		b.Keep = keep
		b.out.Reset()
		if err := Run(t.Context(), here(), b.Options); err != nil {
			t.Fatal(err)
		}
		if b.out.String() != "sha256:1\n" {
			t.Errorf("printed %q", b.out.String())
		}
		if got := b.tags(t); len(got) != max(had, map[bool]int{true: 1}[keep]) {
			t.Errorf("keep %v: %v", keep, got)
		}
	}
}

func TestArguments(t *testing.T) {
	env := func(name string) (string, bool) { return "from env", name == "SET" }
	got, err := arguments([]string{"A=1", "B=x=y", "SET", "UNSET", "EMPTY="}, env)
	if want := map[string]string{"A": "1", "B": "x=y", "SET": "from env", "EMPTY": ""}; err != nil || !maps.Equal(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := arguments([]string{"=1"}, env); err == nil || !strings.Contains(err.Error(), "NAME=VALUE") {
		t.Errorf("error %v", err)
	}
}

// TestRaceForTheName: somebody else makes the object first.
func TestRaceForTheName(t *testing.T) {
	b := newBench()
	made, err := b.declare(t.Context(), plan{object: "shop"}, v1alpha1.ImageSpec{Source: v1alpha1.ImageSource{Inline: "FROM x"}})
	if err != nil || !made {
		t.Fatal(made, err)
	}
	made, err = b.declare(t.Context(), plan{object: "shop"}, v1alpha1.ImageSpec{Source: v1alpha1.ImageSource{Path: "/src"}})
	if err != nil || made {
		t.Fatal(made, err)
	}
	image, err := b.Images.Get(t.Context(), "shop", metav1.GetOptions{})
	if err != nil || image.Spec.Source.Path != "/src" || image.Spec.Source.Inline != "" {
		t.Errorf("%+v, %v", image, err)
	}
	if err := b.takeFrom(t.Context(), claim{image: &v1alpha1.Image{ObjectMeta: metav1.ObjectMeta{Name: "gone"}, Spec: v1alpha1.ImageSpec{Tags: []string{"a", "b"}}}, name: "docker.io/library/a:latest"}); !apierrors.IsNotFound(err) {
		t.Errorf("an Image that went meanwhile: %v", err)
	}
}
