package apiserver

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"lighter.dev/lighter/api/cluster"
)

// right is one question to the authoriser: "get secrets kube-system/x".
type right struct {
	verb, group, resource, namespace, name string
}

func (r right) String() string {
	return strings.TrimSpace(fmt.Sprintf("%s %s.%s %s/%s", r.verb, r.resource, r.group, r.namespace, r.name))
}

// may asks as the client itself.
func may(t *testing.T, client kubernetes.Interface, r right) bool {
	t.Helper()
	resource, sub, _ := strings.Cut(r.resource, "/")
	review, err := client.AuthorizationV1().SelfSubjectAccessReviews().Create(t.Context(), &authorizationv1.SelfSubjectAccessReview{
		Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &authorizationv1.ResourceAttributes{
			Verb: r.verb, Group: r.group, Resource: resource, Subresource: sub, Namespace: r.namespace, Name: r.name,
		}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return review.Status.Allowed
}

func runPod(t *testing.T, namespace, name, node string, volumes ...corev1.Volume) {
	t.Helper()
	_, err := shared.client.CoreV1().Pods(namespace).Create(t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       corev1.PodSpec{NodeName: node, Volumes: volumes, Containers: []corev1.Container{{Name: "c", Image: "x"}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

func secretVolume(secret string) corev1.Volume {
	return corev1.Volume{Name: "s", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: secret}}}
}

func register(t *testing.T, node *corev1.Node) *corev1.Node {
	t.Helper()
	made, err := kube(t, asNode(t, node.Name)).CoreV1().Nodes().Create(t.Context(), node, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// The test's own context has ended.
		if err := shared.client.CoreV1().Nodes().Delete(context.Background(), node.Name, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
	return made
}

// TestAgentRights: a stolen agent's certificate opens that agent's pods, no more.
func TestAgentRights(t *testing.T) {
	namespace := newNamespace(t)
	for _, name := range []string{"agent-a", "agent-b"} {
		register(t, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}})
	}
	runPod(t, namespace, "mine", "agent-a", secretVolume("mine"))
	runPod(t, namespace, "other", "agent-b", secretVolume("other"))
	agent := kube(t, asNode(t, "agent-a"))
	const system = metav1.NamespaceSystem
	allowed := []right{
		{"get", "", "secrets", namespace, "mine"}, {"get", "", "pods", namespace, "mine"}, {"update", "", "pods/status", namespace, "mine"},
		{"get", "", "secrets", system, cluster.GossipSecret}, {"get", "", "configmaps", system, cluster.InfoConfigMap},
		{"update", "", "nodes/status", "", "agent-a"}, {"patch", "", "nodes", "", "agent-a"}, {"list", "", "nodes", "", ""},
		{"update", "coordination.k8s.io", "leases", corev1.NamespaceNodeLease, "agent-a"},
		{"watch", "", "services", "", ""}, {"list", "discovery.k8s.io", "endpointslices", "", ""}, {"list", "", "namespaces", "", ""},
		{"list", "lighter.dev", "images", "", ""}, {"patch", "lighter.dev", "images/status", namespace, "web"},
		{"create", "", "events", namespace, ""}, {"create", "certificates.k8s.io", "certificatesigningrequests", "", ""},
	}
	eventually(t, "the authoriser knows the pods", func() error {
		for _, r := range allowed {
			if !may(t, agent, r) {
				return fmt.Errorf("an agent may not %s", r)
			}
		}
		return nil
	})
	for _, r := range []right{
		{"get", "", "secrets", namespace, "other"}, {"list", "", "secrets", namespace, ""}, {"list", "", "secrets", "", ""}, {"watch", "", "secrets", system, ""},
		{"get", "", "secrets", system, "bootstrap-token-abcdef"}, {"update", "", "secrets", system, cluster.GossipSecret},
		{"get", "", "configmaps", system, "other"}, {"list", "", "configmaps", "", ""}, {"update", "", "configmaps", system, cluster.InfoConfigMap},
		{"get", "", "pods", namespace, "other"}, {"list", "", "pods", "", ""}, {"create", "", "pods/exec", namespace, "mine"}, {"create", "", "pods/binding", namespace, "mine"},
		{"create", "lighter.dev", "images", namespace, "web"}, {"update", "lighter.dev", "images", namespace, "web"},
		{"delete", "lighter.dev", "images", namespace, "web"}, {"create", "lighter.dev", "images/build", namespace, "web"},
		{"update", "apps", "deployments", namespace, "web"}, {"create", "rbac.authorization.k8s.io", "clusterrolebindings", "", ""},
		{"update", "certificates.k8s.io", "certificatesigningrequests/approval", "", "x"}, {"create", "", "serviceaccounts", namespace, "x"},
		{"update", "", "services", namespace, "x"}, {"delete", "", "namespaces", "", namespace}, {"impersonate", "", "users", "", "admin"},
	} {
		if may(t, agent, r) {
			t.Errorf("an agent may %s", r)
		}
	}
}

// TestAgentDeeds: what RBAC cannot see, admission refuses.
func TestAgentDeeds(t *testing.T) {
	namespace := newNamespace(t)
	register(t, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "deeds-a"}})
	other := register(t, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "deeds-b"}})
	runPod(t, namespace, "mine", "deeds-a")
	runPod(t, namespace, "other", "deeds-b")
	agent := kube(t, asNode(t, "deeds-a"))
	ctx, all := t.Context(), metav1.ListOptions{}
	forbidden := map[string]func() error{
		"list all pods": func() error { _, err := agent.CoreV1().Pods("").List(ctx, all); return err },
		"another's pods": func() error {
			_, err := agent.CoreV1().Pods("").List(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=deeds-b"})
			return err
		},
		"delete another's pod": func() error { return agent.CoreV1().Pods(namespace).Delete(ctx, "other", metav1.DeleteOptions{}) },
		"another node's status": func() error {
			_, err := agent.CoreV1().Nodes().UpdateStatus(ctx, other, metav1.UpdateOptions{})
			return err
		},
		"a node of another name": func() error {
			_, err := agent.CoreV1().Nodes().Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "deeds-c"}}, metav1.CreateOptions{})
			return err
		},
		"a pod elsewhere": func() error {
			_, err := agent.CoreV1().Pods(namespace).Create(ctx, &corev1.Pod{
				ObjectMeta: metav1.ObjectMeta{Name: "x", Annotations: map[string]string{corev1.MirrorPodAnnotationKey: "x"}},
				Spec:       corev1.PodSpec{NodeName: "deeds-b", Containers: []corev1.Container{{Name: "c", Image: "x"}}},
			}, metav1.CreateOptions{})
			return err
		},
		"a token for another's pod": func() error {
			_, err := agent.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, defaultAccount, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
			return err
		},
	}
	for name, do := range forbidden {
		if err := do(); !apierrors.IsForbidden(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := agent.CoreV1().Pods("").List(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=deeds-a"}); err != nil {
		t.Errorf("its own pods: %v", err)
	}
	eventually(t, "delete its own pod", func() error {
		return agent.CoreV1().Pods(namespace).Delete(ctx, "mine", metav1.DeleteOptions{GracePeriodSeconds: new(int64)})
	})
}

// bearer makes a bootstrap token that expires after ttl.
func bearer(t *testing.T, id string, ttl time.Duration) *rest.Config {
	t.Helper()
	const secret = "0123456789abcdef"
	secrets := shared.client.CoreV1().Secrets(metav1.NamespaceSystem)
	_, err := secrets.Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "bootstrap-token-" + id}, Type: corev1.SecretTypeBootstrapToken,
		StringData: map[string]string{
			"token-id": id, "token-secret": secret, "usage-bootstrap-authentication": "true", "auth-extra-groups": bootstrappers,
			"expiration": time.Now().Add(ttl).UTC().Format(time.RFC3339),
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// The test's own context has ended.
		if err := secrets.Delete(context.Background(), "bootstrap-token-"+id, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
	return withToken(id + "." + secret)
}

// TestBootstrapToken: a join token may ask for certificates and nothing else.
func TestBootstrapToken(t *testing.T) {
	config := bearer(t, "aaaaaa", time.Hour)
	client := kube(t, config)
	eventually(t, "the token is known", func() error {
		review, err := client.AuthenticationV1().SelfSubjectReviews().Create(t.Context(), &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
		if err == nil && review.Status.UserInfo.Username != "system:bootstrap:aaaaaa" {
			err = errors.New(review.Status.UserInfo.Username)
		}
		return err
	})
	const certificates = "certificates.k8s.io"
	eventually(t, "its rights", func() error {
		for _, verb := range []string{"create", "get", "list", "watch"} {
			if r := (right{verb, certificates, "certificatesigningrequests", "", ""}); !may(t, client, r) {
				return fmt.Errorf("a join token may not %s", r)
			}
		}
		return nil
	})
	const system = metav1.NamespaceSystem
	for _, r := range []right{
		{"update", certificates, "certificatesigningrequests/approval", "", "x"}, {"delete", certificates, "certificatesigningrequests", "", "x"},
		{"get", "", "secrets", system, cluster.GossipSecret}, {"get", "", "configmaps", system, cluster.InfoConfigMap}, {"list", "", "secrets", system, ""},
		{"list", "", "nodes", "", ""}, {"create", "", "nodes", "", "x"}, {"list", "", "pods", "", ""}, {"list", "lighter.dev", "images", "", ""},
		{"create", "lighter.dev", "images/build", "default", "x"}, {"create", "", "events", "default", ""},
	} {
		if may(t, client, r) {
			t.Errorf("a join token may %s", r)
		}
	}
	_, err := client.CertificatesV1().CertificateSigningRequests().Create(t.Context(), &certificatesv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{Name: "forged"},
		Spec:       certificatesv1.CertificateSigningRequestSpec{SignerName: certificatesv1.KubeAPIServerClientSignerName, Request: []byte("x")},
	}, metav1.CreateOptions{})
	if !apierrors.IsInvalid(err) {
		t.Errorf("a request that is none: %v", err)
	}
}

func TestRefusedCredentials(t *testing.T) {
	expired := bearer(t, "bbbbbb", -time.Minute)
	for name, config := range map[string]*rest.Config{
		"an expired token": expired, "an unknown token": withToken("cccccc.0123456789abcdef"),
		"a wrong secret": withToken("aaaaaa.fedcba9876543210"), "rubbish": withToken("x"),
	} {
		if _, err := kube(t, config).CoreV1().Namespaces().List(t.Context(), metav1.ListOptions{}); !apierrors.IsUnauthorized(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
