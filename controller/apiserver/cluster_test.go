package apiserver

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"lighter.dev/lighter/api/cluster"
)

// kinds are all that is served: to serve another one is a decision.
var kinds = []string{
	"apps/v1 controllerrevisions",
	"apps/v1 deployments",
	"apps/v1 deployments/scale",
	"apps/v1 deployments/status",
	"apps/v1 replicasets",
	"apps/v1 replicasets/scale",
	"apps/v1 replicasets/status",
	"authentication.k8s.io/v1 selfsubjectreviews",
	"authentication.k8s.io/v1 tokenreviews",
	"authorization.k8s.io/v1 localsubjectaccessreviews",
	"authorization.k8s.io/v1 selfsubjectaccessreviews",
	"authorization.k8s.io/v1 selfsubjectrulesreviews",
	"authorization.k8s.io/v1 subjectaccessreviews",
	"certificates.k8s.io/v1 certificatesigningrequests",
	"certificates.k8s.io/v1 certificatesigningrequests/approval",
	"certificates.k8s.io/v1 certificatesigningrequests/status",
	"certificates.k8s.io/v1 podcertificaterequests",
	"certificates.k8s.io/v1 podcertificaterequests/status",
	"coordination.k8s.io/v1 leases",
	"discovery.k8s.io/v1 endpointslices",
	"events.k8s.io/v1 events",
	"lighter.dev/v1alpha1 containers",
	"lighter.dev/v1alpha1 containers/changes",
	"lighter.dev/v1alpha1 containers/signal",
	"lighter.dev/v1alpha1 containers/stats",
	"lighter.dev/v1alpha1 containers/top",
	"lighter.dev/v1alpha1 images",
	"lighter.dev/v1alpha1 images/build",
	"lighter.dev/v1alpha1 images/commit",
	"lighter.dev/v1alpha1 images/content",
	"lighter.dev/v1alpha1 images/details",
	"lighter.dev/v1alpha1 images/push",
	"lighter.dev/v1alpha1 images/status",
	"networking.k8s.io/v1 ipaddresses",
	"networking.k8s.io/v1 servicecidrs",
	"networking.k8s.io/v1 servicecidrs/status",
	"policy/v1 poddisruptionbudgets",
	"policy/v1 poddisruptionbudgets/status",
	"rbac.authorization.k8s.io/v1 clusterrolebindings",
	"rbac.authorization.k8s.io/v1 clusterroles",
	"rbac.authorization.k8s.io/v1 rolebindings",
	"rbac.authorization.k8s.io/v1 roles",
	"resource.k8s.io/v1 resourceslices",
	"scheduling.k8s.io/v1 priorityclasses",
	"storage.k8s.io/v1 volumeattachments",
	"storage.k8s.io/v1 volumeattachments/status",
	"v1 bindings",
	"v1 componentstatuses",
	"v1 configmaps",
	"v1 endpoints",
	"v1 events",
	"v1 namespaces",
	"v1 namespaces/finalize",
	"v1 namespaces/status",
	"v1 nodes",
	"v1 nodes/proxy",
	"v1 nodes/status",
	"v1 persistentvolumes",
	"v1 persistentvolumes/status",
	"v1 pods",
	"v1 pods/attach",
	"v1 pods/binding",
	"v1 pods/ephemeralcontainers",
	"v1 pods/eviction",
	"v1 pods/exec",
	"v1 pods/log",
	"v1 pods/portforward",
	"v1 pods/proxy",
	"v1 pods/resize",
	"v1 pods/status",
	"v1 podtemplates",
	"v1 secrets",
	"v1 serviceaccounts",
	"v1 serviceaccounts/token",
	"v1 services",
	"v1 services/proxy",
	"v1 services/status",
}

func TestDiscovery(t *testing.T) {
	_, lists, err := kube(t, admin(t)).Discovery().ServerGroupsAndResources()
	if err != nil {
		t.Fatal(err)
	}
	var have []string
	for _, list := range lists {
		for _, resource := range list.APIResources {
			have = append(have, list.GroupVersion+" "+resource.Name)
		}
	}
	slices.Sort(have)
	for _, name := range have {
		if !slices.Contains(kinds, name) {
			t.Errorf("served, but not on the list: %q", name)
		}
	}
	for _, name := range kinds {
		if !slices.Contains(have, name) {
			t.Errorf("not served: %q", name)
		}
	}
}

// TestUnserved: what nothing here acts on is refused, not stored.
func TestUnserved(t *testing.T) {
	client := shared.client.Discovery().RESTClient()
	for _, path := range []string{
		"/apis/batch/v1/namespaces/default/jobs", "/apis/apps/v1/namespaces/default/daemonsets", "/api/v1/namespaces/default/limitranges",
		"/apis/networking.k8s.io/v1/namespaces/default/networkpolicies", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
	} {
		err := client.Post().AbsPath(path).Body([]byte("{}")).Do(t.Context()).Error()
		if err == nil || !strings.Contains(err.Error(), "could not find the requested resource") {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestOwnObjects(t *testing.T) {
	core := kube(t, admin(t)).CoreV1()
	for _, name := range []string{"default", "kube-system", "kube-public", "kube-node-lease"} {
		if _, err := core.Namespaces().Get(t.Context(), name, metav1.GetOptions{}); err != nil {
			t.Error(err)
		}
		eventually(t, "CA of "+name, func() error {
			m, err := core.ConfigMaps(name).Get(t.Context(), rootCAConfigMap, metav1.GetOptions{})
			if err == nil && m.Data[rootCAKey] != string(shared.authority.PEM) {
				err = fmt.Errorf("another CA: %q", m.Data)
			}
			return err
		})
	}
	eventually(t, "service kubernetes", func() error {
		service, err := core.Services("default").Get(t.Context(), "kubernetes", metav1.GetOptions{})
		if err == nil && (service.Spec.ClusterIP != "10.43.0.1" || service.Spec.Ports[0].Port != 443) {
			err = fmt.Errorf("at %s:%d", service.Spec.ClusterIP, service.Spec.Ports[0].Port)
		}
		return err
	})
	eventually(t, "endpoints of kubernetes", func() error {
		slice, err := kube(t, admin(t)).DiscoveryV1().EndpointSlices("default").Get(t.Context(), "kubernetes", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if len(slice.Endpoints) != 1 || slice.Endpoints[0].Addresses[0] != advertised {
			return fmt.Errorf("%+v", slice.Endpoints)
		}
		return nil
	})
	key, err := core.Secrets("kube-system").Get(t.Context(), cluster.GossipSecret, metav1.GetOptions{})
	if err != nil || len(key.Data[cluster.GossipKey]) != cluster.GossipKeyBytes {
		t.Errorf("gossip key of %d bytes, %v", len(key.Data[cluster.GossipKey]), err)
	}
	m, err := core.ConfigMaps("kube-system").Get(t.Context(), cluster.InfoConfigMap, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	want := cluster.Info{ID: shared.authority.ClusterID(), PodCIDR: "10.42.0.0/16", ServiceCIDR: "10.43.0.0/16", Domain: "cluster.local"}
	if have := cluster.FromConfigMap(m); have != want {
		t.Errorf("cluster info %+v, want %+v", have, want)
	}
}

// TestNewNamespace: a namespace can run pods at once, and what is deleted of it comes back.
func TestNewNamespace(t *testing.T) {
	name := newNamespace(t)
	accounts := shared.client.CoreV1().ServiceAccounts(name)
	old, err := accounts.Get(t.Context(), defaultAccount, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := accounts.Delete(t.Context(), defaultAccount, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the account comes back", func() error {
		account, err := accounts.Get(t.Context(), defaultAccount, metav1.GetOptions{})
		if err == nil && account.UID == old.UID {
			err = errors.New("still the old one")
		}
		return err
	})
}

// TestRestart: a later start makes nothing anew, and refuses other ranges at once.
func TestRestart(t *testing.T) {
	secrets := shared.client.CoreV1().Secrets("kube-system")
	before, err := secrets.Get(t.Context(), cluster.GossipSecret, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := shared.bootstrap(t.Context()); err != nil {
		t.Errorf("second start: %v", err)
	}
	after, err := secrets.Get(t.Context(), cluster.GossipSecret, metav1.GetOptions{})
	if err != nil || after.ResourceVersion != before.ResourceVersion {
		t.Errorf("the gossip key has changed: %v", err)
	}
	for name, change := range map[string]func(*Config){
		"pods":   func(c *Config) { c.PodCIDR = netip.MustParsePrefix("10.44.0.0/16") },
		"domain": func(c *Config) { c.ClusterDomain = "example" },
	} {
		other := &Server{cfg: shared.cfg, client: shared.client}
		change(&other.cfg)
		began := time.Now()
		err := other.bootstrap(t.Context())
		if err == nil {
			t.Errorf("%s: not refused", name)
			continue
		}
		for _, want := range []string{"10.42.0.0/16", "10.43.0.0/16", "cluster.local", "cannot be changed", "cluster-cidr"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %q does not say %q", name, err, want)
			}
		}
		if took := time.Since(began); took > 30*time.Second {
			t.Errorf("%s: refused only after %s", name, took)
		}
	}
}

// TestAnonymous: without credentials one sees health, version and the CA.
func TestAnonymous(t *testing.T) {
	client, err := rest.HTTPClientFor(anonymous())
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]int{
		"/healthz": http.StatusOK, "/livez": http.StatusOK, "/readyz": http.StatusOK, "/version": http.StatusOK, caPath: http.StatusOK,
		"/": http.StatusForbidden, "/api": http.StatusForbidden, "/apis": http.StatusForbidden, "/metrics": http.StatusForbidden,
		openAPIV2: http.StatusForbidden, openAPIV3: http.StatusForbidden, "/api/v1/namespaces": http.StatusForbidden,
		"/api/v1/namespaces/kube-system/configmaps/lighter-cluster": http.StatusForbidden, "/debug/pprof/": http.StatusForbidden,
		"/openid/v1/jwks": http.StatusForbidden, "/logs": http.StatusForbidden,
	} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+shared.address+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		reply, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(reply.Body)
		reply.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		if reply.StatusCode != want {
			t.Errorf("%s: %s", path, reply.Status)
		}
		if path == caPath && string(text) != string(shared.authority.PEM) {
			t.Errorf("CA: %q", text)
		}
	}
}

// TestRoles: the roles for people include our kind.
func TestRoles(t *testing.T) {
	for role, want := range map[string][]string{
		"view": {"get images", "list images", "watch images"}, "edit": {"create images", "delete images", "create images/build", "get images"},
		"admin": {"create images", "create images/build"},
	} {
		eventually(t, role, func() error {
			r, err := shared.client.RbacV1().ClusterRoles().Get(t.Context(), role, metav1.GetOptions{})
			if err != nil {
				return err
			}
			have := map[string]bool{}
			for _, rule := range r.Rules {
				for _, verb := range rule.Verbs {
					for _, resource := range rule.Resources {
						have[verb+" "+resource] = slices.Contains(rule.APIGroups, "lighter.dev") || have[verb+" "+resource]
					}
				}
			}
			for _, right := range want {
				if !have[right] {
					return fmt.Errorf("may not %s", right)
				}
			}
			if role == "view" && (have["create images"] || have["create images/build"]) {
				return errors.New("viewers may write")
			}
			return nil
		})
	}
}
