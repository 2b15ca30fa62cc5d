package images

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	kubefake "k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/rest"

	"lighter.dev/lighter/api/agentapi"
	"lighter.dev/lighter/api/client/clientset/fake"
	"lighter.dev/lighter/api/v1alpha1"
)

// agent is a working fake of one host's agent: what it holds, by name.
type agent struct {
	mu   sync.Mutex
	held []agentapi.Image
	// registry is what it can pull, by full name.
	registry map[string]string
}

func (a *agent) handler() http.Handler {
	mux := http.NewServeMux()
	answer := func(w http.ResponseWriter, doc any) { _ = json.NewEncoder(w).Encode(doc) }
	refuse := func(w http.ResponseWriter, code int, text string) {
		w.WriteHeader(code)
		answer(w, metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status"}, Status: "Failure", Code: int32(code), Message: text})
	}
	mux.HandleFunc("GET /images", func(w http.ResponseWriter, _ *http.Request) {
		a.mu.Lock()
		defer a.mu.Unlock()
		answer(w, a.held)
	})
	mux.HandleFunc("POST /images/pull", func(w http.ResponseWriter, r *http.Request) {
		digest, ok := a.registry[r.FormValue(agentapi.ParamRef)]
		if !ok {
			refuse(w, http.StatusNotFound, "the registry has no such image")
			return
		}
		answer(w, agentapi.Progress{Status: "Pulling from library/nginx"})
		answer(w, agentapi.Progress{ID: digest, Status: "Downloading", Current: 1, Total: 2})
		answer(w, agentapi.Progress{ID: digest, Status: "Pull complete"})
		answer(w, agentapi.Progress{Done: &agentapi.Result{Name: r.FormValue(agentapi.ParamRef), Digest: digest}})
	})
	mux.HandleFunc("POST /images/remove", func(w http.ResponseWriter, r *http.Request) {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.held = nil
		answer(w, agentapi.Removed{Untagged: []string{r.FormValue(agentapi.ParamRef)}, Deleted: []string{"sha256:gone"}})
	})
	return mux
}

// desk is a Cluster of fakes with what its verbs print.
type desk struct {
	*Cluster
	out, err bytes.Buffer
}

// newDesk has Ready hosts with these agents, and objects of kind Image and others.
func newDesk(t *testing.T, agents map[string]*agent, objects ...runtime.Object) *desk {
	t.Helper()
	var images, others []runtime.Object
	for _, object := range objects {
		if _, ok := object.(*v1alpha1.Image); ok {
			images = append(images, object)
		} else {
			others = append(others, object)
		}
	}
	servers := map[string]*httptest.Server{}
	for name, agent := range agents {
		others = append(others, node(name, corev1.ConditionTrue))
		servers[name] = httptest.NewServer(agent.handler())
		t.Cleanup(servers[name].Close)
	}
	api := httptest.NewServer(http.HandlerFunc(subresources))
	t.Cleanup(api.Close)
	d := &desk{}
	d.Cluster = &Cluster{
		Kube: kubefake.NewClientset(others...), Lighter: fake.NewSimpleClientset(images...), Namespace: "default",
		Agent: func(node string) (*agentapi.Client, error) {
			base, err := url.Parse(servers[node].URL)
			return agentapi.NewClient(http.DefaultClient, base), err
		},
		Object: func(namespace, name string) (*agentapi.ObjectClient, error) {
			return agentapi.NewObjectClient(&rest.Config{Host: api.URL}, namespace, name)
		},
		Out: &d.out, Err: &d.err,
	}
	return d
}

// subresources takes every content but "broken".
func subresources(w http.ResponseWriter, r *http.Request) {
	sent, _ := io.ReadAll(r.Body)
	line := agentapi.Progress{Done: &agentapi.Result{Name: r.FormValue(agentapi.ParamRef), Digest: digestOf('d')}}
	if string(sent) == "broken" {
		line = agentapi.Progress{Error: "the archive is damaged"}
	}
	_ = json.NewEncoder(w).Encode(line)
}

func node(name string, ready corev1.ConditionStatus) *corev1.Node {
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: corev1.NodeStatus{
		Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: ready}},
	}}
}

// digestOf is a digest that is easy to tell from others.
func digestOf(c rune) string { return "sha256:" + strings.Repeat(string(c), 64) }

// imageObject is an Image of namespace default that is made from an archive.
func imageObject(name, digest string, tags ...string) *v1alpha1.Image {
	return &v1alpha1.Image{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"},
		Spec:       v1alpha1.ImageSpec{Source: v1alpha1.ImageSource{Archive: &v1alpha1.ArchiveSource{}}, Tags: tags},
		Status:     v1alpha1.ImageStatus{Digest: digest},
	}
}

func built(image *v1alpha1.Image) *v1alpha1.Image {
	image.Spec.Source = v1alpha1.ImageSource{Path: "."}
	return image
}

// wants checks that a text has all of these.
func wants(t *testing.T, what, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("%s: no %q in:\n%s", what, part, text)
		}
	}
}
