package apiserver

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/client-go/rest"

	"lighter.dev/lighter/api/agentapi"
	typed "lighter.dev/lighter/api/client/clientset/typed/api/v1alpha1"
	"lighter.dev/lighter/api/v1alpha1"
	"lighter.dev/lighter/controller/pki"
)

// heard is what an agent was asked.
type heard struct {
	Asked, From string
	Body        int
}

// listener is an agent that answers with what it heard.
func listener(t *testing.T) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		_ = json.NewEncoder(w).Encode(heard{r.Method + " " + r.URL.String(), r.TLS.PeerCertificates[0].Subject.CommonName, len(body)})
	})
}

func tagged(name string, source v1alpha1.ImageSource) *v1alpha1.Image {
	return &v1alpha1.Image{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       v1alpha1.ImageSpec{Source: source, Tags: []string{"shop:v1", "reg.example/shop"}},
	}
}

// filled gives an Image content.
func filled(t *testing.T, client typed.ImageInterface, image *v1alpha1.Image) {
	t.Helper()
	image.Status.Digest = "sha256:1"
	if _, err := client.UpdateStatus(t.Context(), image, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// ask sends a request to a subresource of an Image.
func ask(t *testing.T, config *rest.Config, method, namespace, path string, body io.Reader) (heard, error) {
	t.Helper()
	return askOf(t, config, method, namespace, "images/"+path, body)
}

// askOf sends a request to a path of our group in a namespace.
func askOf(t *testing.T, config *rest.Config, method, namespace, path string, body io.Reader) (heard, error) {
	t.Helper()
	result := ours(t, config).LighterV1alpha1().RESTClient().Verb(method).
		RequestURI("/apis/" + v1alpha1.SchemeGroupVersion.String() + "/namespaces/" + namespace + "/" + path).
		Body(body).MaxRetries(0).Do(t.Context())
	if err := result.Error(); err != nil {
		return heard{}, err
	}
	raw, err := result.Raw()
	if err != nil {
		return heard{}, err
	}
	var answer heard
	return answer, json.Unmarshal(raw, &answer)
}

var (
	archive   = v1alpha1.ImageSource{Archive: &v1alpha1.ArchiveSource{Name: "shop.tar"}}
	container = v1alpha1.ImageSource{Container: &v1alpha1.ContainerSource{Pod: "web-1", Container: "c"}}
)

func TestQuestionsToAgents(t *testing.T) {
	client, namespace := images(t)
	place(t, "asked", agentServing(t, "asked", listener(t)))
	shared.picker.set("asked", nil)
	filled(t, client, create(t, client, tagged("shop", archive)))
	filled(t, client, create(t, client, tagged("kept", container)))
	runPod(t, namespace, "web-1", "asked")
	// Larger than what the API takes of an object.
	large := bytes.Repeat([]byte("x"), 8<<20)
	about := "namespace=" + namespace
	for _, test := range []struct {
		method, path string
		body         []byte
		want         string
	}{
		{"POST", "shop/content", large, "POST /images/import?image=shop&" + about},
		{"POST", "shop/content?ref=b%26c&namespace=kube-system&image=other", large, "POST /images/import?image=shop&" + about + "&ref=b%26c"},
		{"GET", "shop/content?namespace=kube-system", nil, "GET /images/save?" + about + "&ref=docker.io%2Flibrary%2Fshop%3Av1%40sha256%3A1&ref=reg.example%2Fshop%3Alatest%40sha256%3A1"},
		{"GET", "shop/details", nil, "GET /images/inspect?" + about + "&ref=shop%3Av1%40sha256%3A1"},
		{"POST", "shop/push", []byte("{}"), "POST /images/push?" + about + "&ref=shop%3Av1%40sha256%3A1&to=shop%3Av1"},
		{"POST", "shop/push?to=reg.example/shop:latest", nil, "POST /images/push?" + about + "&ref=reg.example%2Fshop%40sha256%3A1&to=reg.example%2Fshop%3Alatest"},
		{"POST", "shop/push?ref=reg.example/shop&to=other/x", nil, "POST /images/push?" + about + "&ref=reg.example%2Fshop%40sha256%3A1&to=other%2Fx"},
		{"POST", "kept/commit", nil, "POST /images/commit?container=c&image=kept&" + about + "&pod=web-1"},
		{"POST", "kept/commit?pod=web-1&container=c", nil, "POST /images/commit?container=c&image=kept&" + about + "&pod=web-1"},
	} {
		got, err := ask(t, admin(t), test.method, namespace, test.path, bytes.NewReader(test.body))
		if err != nil || got.Asked != test.want || got.Body != len(test.body) || got.From != pki.KubeletClientName {
			t.Errorf("%s %s: %+v, %v\nwant %s", test.method, test.path, got, err, test.want)
		}
	}
}

// TestProgressArrivesAtOnce: a line is there although the next one is not.
func TestProgressArrivesAtOnce(t *testing.T) {
	client, namespace := images(t)
	more := make(chan struct{})
	place(t, "slow", agentServing(t, "slow", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, `{"status":"Pushing"}`)
		_ = http.NewResponseController(w).Flush()
		select {
		case <-more:
		case <-r.Context().Done():
		}
		fmt.Fprintln(w, `{"done":{"name":"shop","digest":"sha256:1"}}`)
	})))
	shared.picker.set("slow", nil)
	filled(t, client, create(t, client, tagged("shop", archive)))
	asking, err := agentapi.NewObjectClient(admin(t), namespace, "shop")
	if err != nil {
		t.Fatal(err)
	}
	result, err := asking.Push(t.Context(), "shop:v1", agentapi.Credentials{}, func(line agentapi.Progress) {
		if line.Status == "Pushing" {
			close(more)
		}
	})
	if err != nil || result.Digest != "sha256:1" {
		t.Errorf("%+v, %v", result, err)
	}
}

func TestQuestionsRefused(t *testing.T) {
	client, namespace := images(t)
	create(t, client, tagged("empty", archive))
	create(t, client, newImage("built"))
	create(t, client, tagged("kept", container))
	create(t, client, tagged("pending", v1alpha1.ImageSource{Container: &v1alpha1.ContainerSource{Pod: "pending", Container: "c"}}))
	filled(t, client, create(t, client, tagged("full", archive)))
	runPod(t, namespace, "pending", "")
	place(t, "refusing", agentServing(t, "refusing", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusConflict)
		_ = json.NewEncoder(w).Encode(metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: "Failure", Code: 409, Reason: metav1.StatusReasonConflict, Message: "the agent's own words"})
	})))
	for _, test := range []struct {
		method, path string
		pickErr      error
		is           func(error) bool
		want         string
	}{
		{"GET", "none/content", nil, apierrors.IsNotFound, `"none" not found`},
		{"GET", "empty/content", nil, apierrors.IsConflict, `image empty has no content yet: run "lighter import FILE empty"`},
		{"GET", "built/details", nil, apierrors.IsConflict, `image built has not been built: run "lighter apply -f"`},
		{"POST", "kept/push", nil, apierrors.IsConflict, `image kept has no content yet: run "lighter commit web-1 kept"`},
		{"POST", "full/push?ref=other", nil, apierrors.IsBadRequest, "image full is not called other: its tags are shop:v1, reg.example/shop"},
		{"GET", "full/details", errors.New("all hosts burnt down"), apierrors.IsServiceUnavailable, "all hosts burnt down"},
		{"POST", "empty/content", errors.New("all hosts are full"), apierrors.IsServiceUnavailable, "all hosts are full"},
		{"POST", "built/content", nil, apierrors.IsConflict, "image built comes from path web, not from spec.source.archive"},
		{"POST", "empty/commit", nil, apierrors.IsConflict, "image empty comes from archive shop.tar, not from spec.source.container"},
		{"POST", "kept/commit?pod=other", nil, apierrors.IsBadRequest, "image kept is of container web-1/c"},
		{"POST", "kept/commit", nil, apierrors.IsNotFound, `pods "web-1" not found`},
		{"POST", "pending/commit", nil, apierrors.IsConflict, "pod pending, which is on no host yet"},
		{"GET", "full/details", nil, apierrors.IsConflict, "the agent's own words"},
		{"DELETE", "full/content", nil, apierrors.IsMethodNotSupported, ""},
	} {
		shared.picker.set("refusing", test.pickErr)
		_, err := ask(t, admin(t), test.method, namespace, test.path, http.NoBody)
		if !test.is(err) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s %s: %v, want %q", test.method, test.path, err, test.want)
		}
	}
}

// TestLostAgent: who has sent nothing yet is told to try again.
func TestLostAgent(t *testing.T) {
	client, namespace := images(t)
	place(t, "lost", unreachable)
	shared.picker.set("lost", nil)
	filled(t, client, create(t, client, tagged("shop", archive)))
	_, err := ask(t, admin(t), "GET", namespace, "shop/details", http.NoBody)
	if seconds, ok := apierrors.SuggestsClientDelay(err); !ok || seconds != 1 || !strings.Contains(err.Error(), "lost") {
		t.Errorf("%v", err)
	}
}

func TestWhoMayAskAgents(t *testing.T) {
	client, namespace := images(t)
	place(t, "rights", agentServing(t, "rights", listener(t)))
	shared.picker.set("rights", nil)
	filled(t, client, create(t, client, tagged("shop", archive)))
	filled(t, client, create(t, client, tagged("kept", container)))
	runPod(t, namespace, "web-1", "rights")
	bind(t, namespace, "viewer", "view")
	bind(t, namespace, "editor", "edit")
	bind(t, namespace, "builder", "lighter:images-edit")
	paths := []string{"GET shop/details", "GET shop/content", "POST shop/content", "POST shop/push", "POST kept/commit"}
	for user, allowed := range map[string][]bool{
		"viewer": {true, false, false, false, false},
		"editor": {true, true, true, true, true},
		// Who may only write Images may not look into containers.
		"builder": {false, true, true, true, false},
	} {
		eventually(t, "rights of "+user, func() error {
			for i, path := range paths {
				method, path, _ := strings.Cut(path, " ")
				_, err := ask(t, as(t, user), method, namespace, path, http.NoBody)
				if allowed[i] && err != nil || !allowed[i] && !apierrors.IsForbidden(err) {
					return fmt.Errorf("%s %s: %w", method, path, err)
				}
			}
			return nil
		})
	}
	_, err := ask(t, as(t, "builder"), "POST", namespace, "kept/commit", http.NoBody)
	if want := "takes the right to create pods/exec in namespace " + namespace; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want %q", err, want)
	}
}

// bind gives a user a cluster role in one namespace.
func bind(t *testing.T, namespace, user, role string) {
	t.Helper()
	_, err := shared.client.RbacV1().RoleBindings(namespace).Create(t.Context(), &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: user},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: user}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

// TestUntimed: an archive may take longer than any other request.
func TestUntimed(t *testing.T) {
	none := func(*http.Request, *request.RequestInfo) bool { return false }
	for _, test := range []struct {
		group, resource, subresource string
		want                         bool
	}{
		{v1alpha1.GroupName, "images", "content", true},
		{v1alpha1.GroupName, "images", "build", true},
		{v1alpha1.GroupName, "images", "push", true},
		{v1alpha1.GroupName, "images", "commit", true},
		{v1alpha1.GroupName, "images", "details", false},
		{v1alpha1.GroupName, "images", "status", false},
		{corev1.GroupName, "pods", "content", false},
	} {
		info := &request.RequestInfo{IsResourceRequest: true, APIGroup: test.group, Resource: test.resource, Subresource: test.subresource}
		if got := untimed(none)(nil, info); got != test.want {
			t.Errorf("%s/%s: %v", test.resource, test.subresource, got)
		}
	}
}
