package apply

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"sigs.k8s.io/yaml"
)

// apiServer is a working fake of the part of an API server that apply talks to:
// discovery of a few kinds, GET, and server-side apply with dry run. It refuses
// any field named "wrong", as strict validation would.
type apiServer struct {
	mu      sync.Mutex
	objects map[string]*unstructured.Unstructured
	log     []string // what was changed, in order
	version int
}

func (s *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	kinds := map[string]any{
		"/api":  metav1.APIVersions{Versions: []string{"v1"}},
		"/apis": metav1.APIGroupList{Groups: []metav1.APIGroup{{Name: "lighter.dev", Versions: []metav1.GroupVersionForDiscovery{{GroupVersion: "lighter.dev/v1alpha1", Version: "v1alpha1"}}}}},
		"/api/v1": metav1.APIResourceList{GroupVersion: "v1", APIResources: []metav1.APIResource{
			{Name: "namespaces", Kind: "Namespace", Verbs: []string{"get", "patch"}},
			{Name: "configmaps", Kind: "ConfigMap", Namespaced: true, Verbs: []string{"get", "patch"}},
			{Name: "secrets", Kind: "Secret", Namespaced: true, Verbs: []string{"get", "patch"}},
		}},
		"/apis/lighter.dev/v1alpha1": metav1.APIResourceList{GroupVersion: "lighter.dev/v1alpha1", APIResources: []metav1.APIResource{
			{Name: "images", Kind: "Image", Namespaced: true, Verbs: []string{"get", "patch"}},
		}},
	}
	if answer, ok := kinds[r.URL.Path]; ok {
		reply(w, http.StatusOK, answer)
		return
	}
	switch r.Method {
	case http.MethodGet:
		if object, ok := s.objects[r.URL.Path]; ok {
			reply(w, http.StatusOK, object)
			return
		}
		reply(w, http.StatusNotFound, metav1.Status{Status: "Failure", Reason: metav1.StatusReasonNotFound, Code: 404, Message: r.URL.Path + " not found"})
	case http.MethodPatch:
		s.patch(w, r)
	default:
		reply(w, http.StatusMethodNotAllowed, metav1.Status{Status: "Failure", Code: 405})
	}
}

func (s *apiServer) patch(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	object := &unstructured.Unstructured{}
	if err := yaml.Unmarshal(body, &object.Object); err != nil {
		reply(w, http.StatusBadRequest, metav1.Status{Status: "Failure", Code: 400, Message: err.Error()})
		return
	}
	query := r.URL.Query()
	if query.Get("fieldValidation") == "Strict" && bytes.Contains(body, []byte(`"wrong"`)) {
		reply(w, http.StatusBadRequest, metav1.Status{Status: "Failure", Reason: metav1.StatusReasonBadRequest, Code: 400, Message: `strict decoding error: unknown field "spec.wrong"`})
		return
	}
	parts := strings.Split(r.URL.Path, "/namespaces/")
	if len(parts) == 2 && strings.Contains(parts[1], "/") {
		ns := strings.Split(parts[1], "/")[0]
		if _, ok := s.objects["/api/v1/namespaces/"+ns]; !ok && ns != "default" {
			reply(w, http.StatusNotFound, metav1.Status{Status: "Failure", Reason: metav1.StatusReasonNotFound, Code: 404, Message: `namespaces "` + ns + `" not found`})
			return
		}
	}
	if query.Get("dryRun") == "" {
		before := s.objects[r.URL.Path]
		if before != nil {
			object.SetResourceVersion(before.GetResourceVersion())
		}
		if before == nil || !sameContent(before, object) {
			s.version++
			object.SetResourceVersion(strings.Repeat("i", s.version))
			s.log = append(s.log, object.GetKind()+" "+object.GetName())
		}
		if object.GetKind() == "Image" {
			_ = unstructured.SetNestedStringSlice(object.Object, []string{object.GetName() + ":latest"}, "spec", "tags")
		}
		s.objects[r.URL.Path] = object
	}
	reply(w, http.StatusOK, object)
}

func sameContent(a, b *unstructured.Unstructured) bool {
	x, _ := json.Marshal(a.Object["data"])
	y, _ := json.Marshal(b.Object["data"])
	return bytes.Equal(x, y)
}

func reply(w http.ResponseWriter, code int, body any) {
	if status, ok := body.(metav1.Status); ok {
		status.TypeMeta = metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}
		body = status
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(body)
}

// runApply applies a manifest that lies in a folder with an "app" beside it.
func runApply(t *testing.T, server *apiServer, manifest string, change func(*Options)) (string, error) {
	t.Helper()
	listener := httptest.NewServer(server)
	defer listener.Close()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "app"), 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "m.yaml")
	if err := os.WriteFile(path, []byte(manifest), 0o600); err != nil {
		t.Fatal(err)
	}
	flags := genericclioptions.NewConfigFlags(false)
	empty, cache := filepath.Join(dir, "none"), filepath.Join(dir, "cache")
	flags.APIServer, flags.KubeConfig, flags.CacheDir = &listener.URL, &empty, &cache
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	options := Options{Out: &out, Err: &out}
	options.Files.Filenames = []string{path}
	options.Build = func(context.Context, ImageBuild) (string, error) { return "sha256:built", nil }
	if change != nil {
		change(&options)
	}
	err := Run(t.Context(), flags, options)
	return out.String(), err
}

func newServer() *apiServer { return &apiServer{objects: map[string]*unstructured.Unstructured{}} }

const shop = `apiVersion: v1
kind: ConfigMap
metadata: {name: settings, namespace: shop}
data: {a: b}
---
apiVersion: lighter.dev/v1alpha1
kind: Image
metadata: {name: web, namespace: shop}
spec: {source: {path: app}}
---
apiVersion: v1
kind: Namespace
metadata: {name: shop}
`

func TestRun(t *testing.T) {
	server := newServer()
	var built []ImageBuild
	build := func(o *Options) {
		o.Build = func(_ context.Context, b ImageBuild) (string, error) {
			built = append(built, b)
			return "sha256:built", nil
		}
	}
	out, err := runApply(t, server, shop, build)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"Namespace shop", "ConfigMap settings", "Image web"}; !slices.Equal(server.log, want) {
		t.Errorf("applied %v, want %v", server.log, want)
	}
	if len(built) != 1 || built[0].Namespace != "shop" || built[0].Name != "web" || filepath.Base(built[0].Dir) != "app" || !filepath.IsAbs(built[0].Dir) {
		t.Errorf("built %+v", built)
	}
	for _, want := range []string{"configmap/settings created", "image.lighter.dev/web built: sha256:built"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	out, err = runApply(t, server, shop, nil)
	if err != nil || strings.Contains(out, "created") || strings.Contains(out, "configured") {
		t.Errorf("a second time: %v\n%s", err, out)
	}
	out, err = runApply(t, server, strings.Replace(shop, "a: b", "a: c", 1), nil)
	if err != nil || !strings.Contains(out, "configmap/settings configured") {
		t.Errorf("a change: %v\n%s", err, out)
	}
}

func TestMistakesChangeNothing(t *testing.T) {
	const second = "---\napiVersion: v1\nkind: ConfigMap\n"
	tests := []struct{ name, manifest, want string }{
		{"unknown field", shop + second + "metadata: {name: c, namespace: shop}\nspec: {wrong: 1}", `m.yaml: configmap/c in namespace shop: strict decoding error: unknown field "spec.wrong"`},
		{"key twice", shop + second + "metadata: {name: c}\ndata: {a: x, a: y}", `key "a" already set`},
		{"unknown kind", shop + "---\napiVersion: v1\nkind: Confmap\nmetadata: {name: c}", "Confmap"},
		{"no folder", strings.Replace(shop, "path: app", "path: nowhere", 1), "spec.source.path"},
		{"no name", shop + second + "metadata: {generateName: c}", "metadata.name"},
		{"no namespace", second + "metadata: {name: c, namespace: other}", "does the namespace exist?"},
		{"twice", shop + second + "metadata: {name: settings, namespace: shop}", "also defined in"},
		{"nothing", "# only a comment\n", "no objects"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			server := newServer()
			_, err := runApply(t, server, test.manifest, nil)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want one with %q", err, test.want)
			}
			if len(server.log) != 0 {
				t.Errorf("applied %v", server.log)
			}
		})
	}
}

func TestFailingBuildStops(t *testing.T) {
	server := newServer()
	const after = "---\napiVersion: v1\nkind: Secret\nmetadata: {name: key, namespace: shop}\n"
	_, err := runApply(t, server, shop+after, func(o *Options) {
		o.Build = func(context.Context, ImageBuild) (string, error) { return "", errors.New("step 3 failed") }
	})
	if err == nil || !strings.Contains(err.Error(), "image.lighter.dev/web: step 3 failed") {
		t.Errorf("error %v", err)
	}
	if slices.Contains(server.log, "Secret key") {
		t.Error("went on after a failed build")
	}
}

func TestDryRun(t *testing.T) {
	server := newServer()
	out, err := runApply(t, server, shop, func(o *Options) { o.DryRun = true })
	if err != nil || len(server.log) != 0 || !strings.Contains(out, "configmap/settings would be applied") {
		t.Errorf("%v, %v\n%s", err, server.log, out)
	}
}
