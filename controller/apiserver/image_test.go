package apiserver

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	typed "lighter.dev/lighter/api/client/clientset/typed/api/v1alpha1"
	"lighter.dev/lighter/api/v1alpha1"
)

func images(t *testing.T) (typed.ImageInterface, string) {
	t.Helper()
	namespace := newNamespace(t)
	return ours(t, admin(t)).LighterV1alpha1().Images(namespace), namespace
}

func newImage(name string) *v1alpha1.Image {
	return &v1alpha1.Image{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.ImageSpec{Source: v1alpha1.ImageSource{Path: "web"}}}
}

func create(t *testing.T, client typed.ImageInterface, image *v1alpha1.Image) *v1alpha1.Image {
	t.Helper()
	made, err := client.Create(t.Context(), image, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func TestImageDefaults(t *testing.T) {
	client, _ := images(t)
	given := newImage("web")
	given.Status.Digest = "sha256:forged"
	made := create(t, client, given)
	if !slices.Equal(made.Spec.Tags, []string{"web:latest"}) || made.Spec.Dockerfile != "Dockerfile" {
		t.Errorf("defaults: %+v", made.Spec)
	}
	if made.Generation != 1 || made.Status.Digest != "" {
		t.Errorf("a new image has generation %d and status %+v", made.Generation, made.Status)
	}
	generated := newImage("")
	generated.GenerateName = "gen-"
	if made := create(t, client, generated); !slices.Equal(made.Spec.Tags, []string{made.Name + ":latest"}) {
		t.Errorf("%s has tags %v", made.Name, made.Spec.Tags)
	}
}

func TestImageValidation(t *testing.T) {
	client, _ := images(t)
	for name, test := range map[string]struct {
		change func(*v1alpha1.ImageSpec)
		want   []string
	}{
		"no source":      {func(s *v1alpha1.ImageSpec) { s.Source.Path = "" }, []string{"spec.source: Required"}},
		"two sources":    {func(s *v1alpha1.ImageSpec) { s.Source.Inline = "FROM x" }, []string{"spec.source.inline: Forbidden", "remove this or spec.source.path"}},
		"a wrong tag":    {func(s *v1alpha1.ImageSpec) { s.Tags = []string{"Web"} }, []string{`spec.tags[0]: Invalid value: "Web"`}},
		"a digest":       {func(s *v1alpha1.ImageSpec) { s.Tags = []string{"web@sha256:" + strings.Repeat("0", 64)} }, []string{"spec.tags[0]", "must not contain a digest"}},
		"a tag twice":    {func(s *v1alpha1.ImageSpec) { s.Tags = []string{"web", "docker.io/library/web:latest"} }, []string{"spec.tags[1]: Duplicate"}},
		"a way out":      {func(s *v1alpha1.ImageSpec) { s.Dockerfile = "../Dockerfile" }, []string{"spec.dockerfile: Invalid"}},
		"a wrong name":   {func(s *v1alpha1.ImageSpec) { s.Args = map[string]string{"a-b": "c"} }, []string{"spec.args[a-b]: Invalid"}},
		"several faults": {func(s *v1alpha1.ImageSpec) { s.Source.Path, s.Tags = "", []string{"?"} }, []string{"spec.source", "spec.tags[0]"}},
	} {
		image := newImage("bad")
		test.change(&image.Spec)
		_, err := client.Create(t.Context(), image, metav1.CreateOptions{})
		if !apierrors.IsInvalid(err) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, want := range append(test.want, `Image.lighter.dev "bad" is invalid`) {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %q does not say %q", name, err, want)
			}
		}
	}
	made := create(t, client, newImage("good"))
	made.Spec.Tags = []string{"?"}
	if _, err := client.Update(t.Context(), made, metav1.UpdateOptions{}); !apierrors.IsInvalid(err) {
		t.Errorf("update: %v", err)
	}
}

// TestImageStatus: the two halves of an object have different writers.
func TestImageStatus(t *testing.T) {
	client, _ := images(t)
	made := create(t, client, newImage("web"))
	made.Status.Digest, made.Spec.Target = "sha256:1", "other"
	status, err := client.UpdateStatus(t.Context(), made, metav1.UpdateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if status.Status.Digest != "sha256:1" || status.Spec.Target != "" || status.Generation != 1 {
		t.Errorf("after a write of the status: %+v, generation %d", status, status.Generation)
	}
	status.Status.Digest, status.Spec.Target = "sha256:2", "other"
	spec, err := client.Update(t.Context(), status, metav1.UpdateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if spec.Status.Digest != "sha256:1" || spec.Spec.Target != "other" || spec.Generation != 2 {
		t.Errorf("after a write of the spec: %+v, generation %d", spec, spec.Generation)
	}
	if _, err := client.Update(t.Context(), made, metav1.UpdateOptions{}); !apierrors.IsConflict(err) {
		t.Errorf("a write from an old read: %v", err)
	}
	if _, err := client.UpdateStatus(t.Context(), newImage("none"), metav1.UpdateOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("status of nothing: %v", err)
	}
}

func TestImageApply(t *testing.T) {
	client, _ := images(t)
	apply := func(manager, text string, subresources ...string) (*v1alpha1.Image, error) {
		return client.Patch(t.Context(), "web", types.ApplyPatchType, []byte(text), metav1.PatchOptions{FieldManager: manager}, subresources...)
	}
	const head = `{"apiVersion":"lighter.dev/v1alpha1","kind":"Image","metadata":{"name":"web"},`
	if _, err := apply("a", head+`"spec":{"source":{"path":"x"},"args":{"A":"1"}}}`); err != nil {
		t.Fatal(err)
	}
	image, err := apply("b", head+`"spec":{"source":{"path":"x"},"args":{"B":"2"}}}`)
	if err != nil {
		t.Fatal(err)
	}
	if image.Spec.Args["A"] != "1" || image.Spec.Args["B"] != "2" {
		t.Errorf("two managers' arguments became %v", image.Spec.Args)
	}
	if _, err := apply("b", head+`"spec":{"source":{"path":"y"}}}`); !apierrors.IsConflict(err) || !strings.Contains(err.Error(), ".spec.source.path") {
		t.Errorf("a conflict: %v", err)
	}
	if image, err = apply("a", head+`"spec":{"source":{"path":"x"}}}`); err != nil || image.Spec.Args["A"] != "" || image.Spec.Args["B"] != "2" {
		t.Errorf("after a let go of its argument: %v, %v", image.Spec.Args, err)
	}
	if image, err = apply("builder", head+`"status":{"digest":"sha256:1"}}`, "status"); err != nil || image.Status.Digest != "sha256:1" {
		t.Errorf("status: %+v, %v", image.Status, err)
	}
	_, err = client.Patch(t.Context(), "web", types.MergePatchType, []byte(`{"spec":{"sauce":1}}`), metav1.PatchOptions{FieldValidation: "Strict"})
	if err == nil || !strings.Contains(err.Error(), `unknown field "spec.sauce"`) {
		t.Errorf("an unknown field: %v", err)
	}
}

func TestImageTable(t *testing.T) {
	client, namespace := images(t)
	made := create(t, client, newImage("web"))
	made.Status.Digest, made.Status.NodeName = "sha256:0123456789abcdef", "node-a"
	made.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ImageBuilt, Status: metav1.ConditionTrue, Reason: "Done", LastTransitionTime: metav1.Now()}}
	if _, err := client.UpdateStatus(t.Context(), made, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	text, err := ours(t, admin(t)).LighterV1alpha1().RESTClient().Get().Namespace(namespace).Resource("images").
		SetHeader("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io").DoRaw(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var table metav1.Table
	if err := json.Unmarshal(text, &table); err != nil {
		t.Fatal(err)
	}
	var columns []string
	for _, column := range table.ColumnDefinitions {
		columns = append(columns, column.Name)
	}
	if want := []string{"Name", "Tags", "Source", "Digest", "Built", "Node", "Age"}; !slices.Equal(columns, want) {
		t.Errorf("columns %v, want %v", columns, want)
	}
	want := []any{"web", "web:latest", "path web", "0123456789ab", "Done", "node-a"}
	if len(table.Rows) != 1 || !slices.Equal(table.Rows[0].Cells[:len(want)], want) {
		t.Errorf("rows %+v, want %v", table.Rows, want)
	}
}

func TestImageWatch(t *testing.T) {
	client, _ := images(t)
	watching, err := client.Watch(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer watching.Stop()
	made := create(t, client, newImage("web"))
	made.Spec.Target = "x"
	if _, err := client.Update(t.Context(), made, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := client.Delete(t.Context(), "web", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []watch.EventType{watch.Added, watch.Modified, watch.Deleted} {
		select {
		case event := <-watching.ResultChan():
			if event.Type != want {
				t.Fatalf("event %s, want %s", event.Type, want)
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("no event %s", want)
		}
	}
}
