package apiserver

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/openapi3"
	"k8s.io/client-go/rest"
)

// answer is a reply whose body has been read as it came.
type answer struct {
	*http.Response
	body []byte
}

func getWith(t *testing.T, path string, header ...string) answer {
	t.Helper()
	config := admin(t)
	config.DisableCompression = true // by the transport; tests ask for it themselves
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		t.Fatal(err)
	}
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, config.Host+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	reply, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer reply.Body.Close()
	body, err := io.ReadAll(reply.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{reply, body}
}

func TestDocuments(t *testing.T) {
	const (
		protoV2, oldV2 = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf", "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
		protoV3        = "application/com.github.proto-openapi.spec.v3.v1.0+protobuf"
		images         = openAPIV3 + "/apis/lighter.dev/v1alpha1"
	)
	for _, test := range []struct {
		path, accept string
		status       int
		form         string
	}{
		{openAPIV2, "", http.StatusOK, "application/json"}, {openAPIV2, "*/*", http.StatusOK, "application/json"},
		{openAPIV2, protoV2, http.StatusOK, protoV2}, {openAPIV2, oldV2, http.StatusOK, protoV2}, {openAPIV2, "text/html", http.StatusNotAcceptable, ""},
		{images, "application/json", http.StatusOK, "application/json"}, {images, protoV3, http.StatusOK, protoV3},
		{images, "text/html, application/json;q=0.5", http.StatusOK, "application/json"},
		{openAPIV3, "", http.StatusOK, "application/json"}, {openAPIV3 + "/apis/none/v1", "", http.StatusNotFound, ""},
		{openAPIV3 + "/apis/none/v1", protoV3, http.StatusNotFound, ""},
	} {
		reply := getWith(t, test.path, "Accept", test.accept)
		if reply.StatusCode != test.status || test.form != "" && reply.Header.Get("Content-Type") != test.form {
			t.Errorf("%s as %q: %s, %s", test.path, test.accept, reply.Status, reply.Header.Get("Content-Type"))
		}
	}
	for _, path := range []string{openAPIV2, images} {
		plain := getWith(t, path)
		if !json.Valid(plain.body) || !strings.Contains(string(plain.body), "spec says where the image comes from") {
			t.Errorf("%s does not describe images", path)
		}
		packed := getWith(t, path, "Accept-Encoding", "gzip")
		unpacked, err := unpack(packed.body)
		if err != nil || packed.Header.Get("Content-Encoding") != "gzip" || string(unpacked) != string(plain.body) {
			t.Errorf("%s with gzip: %v", path, err)
		}
		etag := plain.Header.Get("Etag")
		if again := getWith(t, path, "If-None-Match", etag); again.StatusCode != http.StatusNotModified {
			t.Errorf("%s with its own ETag: %s", path, again.Status)
		}
	}
}

// TestIndex: the hashes in v3's index are good for ever, others lead to the good one.
func TestIndex(t *testing.T) {
	var index struct {
		Paths map[string]struct{ ServerRelativeURL string }
	}
	if err := json.Unmarshal(getWith(t, openAPIV3).body, &index); err != nil {
		t.Fatal(err)
	}
	for _, group := range []string{"api/v1", "apis/apps/v1", "apis/lighter.dev/v1alpha1", "version"} {
		path := index.Paths[group].ServerRelativeURL
		reply := getWith(t, path)
		if reply.StatusCode != http.StatusOK || !strings.Contains(reply.Header.Get("Cache-Control"), "immutable") {
			t.Errorf("%s: %s, %q", path, reply.Status, reply.Header.Get("Cache-Control"))
		}
		wrong, _, _ := strings.Cut(path, "?")
		if reply := getWith(t, wrong+"?hash=0"); reply.StatusCode != http.StatusMovedPermanently || reply.Header.Get("Location") != path {
			t.Errorf("a wrong hash of %s: %s to %s", group, reply.Status, reply.Header.Get("Location"))
		}
	}
}

// TestModels: the models that apply and explain look up are complete: every
// reference leads somewhere.
func TestModels(t *testing.T) {
	root := openapi3.NewRoot(shared.client.Discovery().OpenAPIV3())
	versions, err := root.GroupVersions()
	if err != nil {
		t.Fatal(err)
	}
	for _, version := range versions {
		document, err := root.GVSpec(version)
		if err != nil {
			t.Errorf("%s: %v", version, err)
			continue
		}
		text, err := json.Marshal(document)
		if err != nil {
			t.Fatal(err)
		}
		for _, part := range strings.Split(string(text), `"$ref":"#/components/schemas/`)[1:] {
			name, _, _ := strings.Cut(part, `"`)
			if document.Components.Schemas[name] == nil {
				t.Errorf("%s refers to %s, which it has not", version, name)
			}
		}
	}
}

// TestApplyMergesLists: server-side apply has its schema from the models that were
// let go after the start: lists of containers merge by name, those of ports by
// port and protocol.
func TestApplyMergesLists(t *testing.T) {
	namespace := newNamespace(t)
	deployments := kube(t, admin(t)).AppsV1().Deployments(namespace)
	apply := func(manager, containers string) error {
		text := `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web"},"spec":{"selector":{"matchLabels":{"a":"b"}},` +
			`"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":` + containers + `}}}}`
		_, err := deployments.Patch(t.Context(), "web", types.ApplyPatchType, []byte(text), metav1.PatchOptions{FieldManager: manager})
		return err
	}
	for _, step := range []struct{ manager, containers string }{
		{"a", `[{"name":"one","image":"x","env":[{"name":"A","value":"1"}],"ports":[{"containerPort":80}]},{"name":"two","image":"y"}]`},
		{"b", `[{"name":"one","env":[{"name":"B","value":"2"}],"ports":[{"containerPort":81}]}]`},
		{"a", `[{"name":"one","image":"z","env":[{"name":"A","value":"1"}],"ports":[{"containerPort":80}]}]`},
	} {
		if err := apply(step.manager, step.containers); err != nil {
			t.Fatal(err)
		}
	}
	deployment, err := deployments.Get(t.Context(), "web", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	containers := deployment.Spec.Template.Spec.Containers
	if len(containers) != 1 || containers[0].Image != "z" || len(containers[0].Env) != 2 || len(containers[0].Ports) != 2 {
		t.Errorf("containers %+v", containers)
	}
	if err := apply("c", `[{"name":"one","image":"other"}]`); err == nil || !strings.Contains(err.Error(), `containers[name="one"].image`) {
		t.Errorf("a conflict: %v", err)
	}
}

// TestStrategicMerge is what "kubectl edit" and "kubectl apply" without
// --server-side send.
func TestStrategicMerge(t *testing.T) {
	services := kube(t, admin(t)).CoreV1().Services(newNamespace(t))
	service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "web"}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "a", Port: 80}}}}
	if _, err := services.Create(t.Context(), service, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	after, err := services.Patch(t.Context(), "web", types.StrategicMergePatchType, []byte(`{"spec":{"ports":[{"name":"b","port":81}]}}`), metav1.PatchOptions{})
	if err != nil || len(after.Spec.Ports) != 2 {
		t.Errorf("ports %+v, %v", after.Spec.Ports, err)
	}
}
