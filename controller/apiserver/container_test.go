package apiserver

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"lighter.dev/lighter/api/v1alpha1"
)

// TestQuestionsAboutContainers: they lead to the pod's host, about that pod alone.
func TestQuestionsAboutContainers(t *testing.T) {
	namespace := newNamespace(t)
	place(t, "holding", agentServing(t, "holding", listener(t)))
	runPod(t, namespace, "web", "holding")
	runPod(t, namespace, "waits", "")
	about := "namespace=" + namespace + "&pod=web"
	for _, test := range []struct{ method, path, want string }{
		{"GET", "web/top?container=c", "GET /containers/top?container=c&" + about},
		{"GET", "web/changes?namespace=kube-system&pod=other", "GET /containers/changes?" + about},
		{"GET", "web/stats", "GET /containers/stats?" + about},
		{"POST", "web/signal?signal=HUP", "POST /containers/signal?" + about + "&signal=HUP"},
	} {
		got, err := askOf(t, admin(t), test.method, namespace, "containers/"+test.path, http.NoBody)
		if err != nil || got.Asked != test.want {
			t.Errorf("%s %s: %+v, %v\nwant %s", test.method, test.path, got, err, test.want)
		}
	}
	for _, test := range []struct {
		method, path string
		is           func(error) bool
		want         string
	}{
		{"GET", "none/top", apierrors.IsNotFound, `pods "none" not found`},
		{"GET", "waits/top", apierrors.IsConflict, "it is on no host yet"},
		{"POST", "web/top", apierrors.IsMethodNotSupported, ""},
		{"GET", "web", apierrors.IsNotFound, ""},
		{"GET", "", apierrors.IsNotFound, ""},
	} {
		_, err := askOf(t, admin(t), test.method, namespace, "containers/"+test.path, http.NoBody)
		if !test.is(err) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s %s: %v, want %q", test.method, test.path, err, test.want)
		}
	}
}

// TestWhoMayAskAboutContainers: by the roles that people have in a namespace, which
// say nothing of another.
func TestWhoMayAskAboutContainers(t *testing.T) {
	mine, other := newNamespace(t), newNamespace(t)
	place(t, "tenants", agentServing(t, "tenants", listener(t)))
	runPod(t, mine, "web", "tenants")
	runPod(t, other, "web", "tenants")
	bind(t, mine, "containers-viewer", "view")
	bind(t, mine, "containers-editor", "edit")
	questions := []string{"GET top", "GET changes", "GET stats", "POST signal"}
	for user, allowed := range map[string][]string{"containers-viewer": questions[:3], "containers-editor": questions} {
		eventually(t, "rights of "+user, func() error {
			for _, question := range questions {
				method, what, _ := strings.Cut(question, " ")
				_, err := askOf(t, as(t, user), method, mine, "containers/web/"+what, http.NoBody)
				if may := slices.Contains(allowed, question); may && err != nil || !may && !apierrors.IsForbidden(err) {
					return fmt.Errorf("%s: %w", question, err)
				}
				if _, err := askOf(t, as(t, user), method, other, "containers/web/"+what, http.NoBody); !apierrors.IsForbidden(err) {
					return fmt.Errorf("%s in another namespace: %w", question, err)
				}
			}
			return nil
		})
	}
}

// TestContainersInDiscovery: clients see the subresources, and nothing to list.
func TestContainersInDiscovery(t *testing.T) {
	list, err := shared.client.Discovery().ServerResourcesForGroupVersion(v1alpha1.SchemeGroupVersion.String())
	if err != nil {
		t.Fatal(err)
	}
	verbs := map[string]metav1.Verbs{}
	for _, resource := range list.APIResources {
		verbs[resource.Name] = resource.Verbs
	}
	for _, name := range []string{"containers/top", "containers/changes", "containers/stats", "containers/signal"} {
		if _, there := verbs[name]; !there {
			t.Errorf("%s is not there: %v", name, verbs)
		}
	}
	if len(verbs["containers"]) != 0 {
		t.Errorf("containers: %v", verbs["containers"])
	}
}
