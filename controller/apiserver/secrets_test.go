package apiserver

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestEncryptedAtRest reads what etcd really has.
func TestEncryptedAtRest(t *testing.T) {
	namespace := newNamespace(t)
	const text = "correct horse battery staple"
	core := shared.client.CoreV1()
	meta := metav1.ObjectMeta{Name: "x"}
	if _, err := core.Secrets(namespace).Create(t.Context(), &corev1.Secret{ObjectMeta: meta, StringData: map[string]string{"k": text}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := core.ConfigMaps(namespace).Create(t.Context(), &corev1.ConfigMap{ObjectMeta: meta, Data: map[string]string{"k": text}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	raw := func(kind string) []byte {
		key := "/registry/" + kind + "/" + namespace + "/x"
		reply, err := shared.store.Client().Get(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		if len(reply.Kvs) != 1 {
			t.Fatalf("etcd has no %s", key)
		}
		return reply.Kvs[0].Value
	}
	if sealed := raw("secrets"); !bytes.HasPrefix(sealed, []byte("k8s:enc:secretbox:v1:key1:")) || bytes.Contains(sealed, []byte(text)) {
		t.Errorf("a secret is stored as %q", sealed)
	}
	if !bytes.Contains(raw("configmaps"), []byte(text)) {
		t.Error("the test does not see what is stored")
	}
	secret, err := core.Secrets(namespace).Get(t.Context(), "x", metav1.GetOptions{})
	if err != nil || string(secret.Data["k"]) != text {
		t.Errorf("read %q, %v", secret.Data["k"], err)
	}
}

// TestServiceAccountToken: a token is its account, for its audience, while its pod exists.
func TestServiceAccountToken(t *testing.T) {
	namespace := newNamespace(t)
	node := register(t, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "token-a"}})
	runPod(t, namespace, "bound", node.Name)
	pod, err := shared.client.CoreV1().Pods(namespace).Get(t.Context(), "bound", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	agent := kube(t, asNode(t, node.Name))
	hour := int64(3600)
	var token string
	eventually(t, "the agent gets its pod's token", func() error {
		reply, err := agent.CoreV1().ServiceAccounts(namespace).CreateToken(t.Context(), defaultAccount, &authenticationv1.TokenRequest{
			Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &hour, BoundObjectRef: &authenticationv1.BoundObjectReference{
				Kind: "Pod", APIVersion: "v1", Name: pod.Name, UID: pod.UID,
			}},
		}, metav1.CreateOptions{})
		if err == nil {
			token = reply.Status.Token
		}
		return err
	})
	whoami := func() (string, error) {
		review, err := kube(t, withToken(token)).AuthenticationV1().SelfSubjectReviews().Create(t.Context(), &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
		if err != nil {
			return "", err
		}
		return review.Status.UserInfo.Username, nil
	}
	if who, err := whoami(); err != nil || who != "system:serviceaccount:"+namespace+":default" {
		t.Errorf("the token is %q, %v", who, err)
	}
	if _, err := kube(t, withToken(token)).CoreV1().Secrets(namespace).List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("an account without roles lists secrets: %v", err)
	}
	review, err := shared.client.AuthenticationV1().TokenReviews().Create(t.Context(), &authenticationv1.TokenReview{
		Spec: authenticationv1.TokenReviewSpec{Token: token, Audiences: []string{"somebody else"}},
	}, metav1.CreateOptions{})
	if err != nil || review.Status.Authenticated {
		t.Errorf("the token is good for another audience: %+v, %v", review.Status, err)
	}
	if err := shared.client.CoreV1().Pods(namespace).Delete(t.Context(), "bound", metav1.DeleteOptions{GracePeriodSeconds: new(int64)}); err != nil {
		t.Fatal(err)
	}
	// Upstream remembers a good token for ten seconds.
	eventually(t, "the token ends with its pod", func() error {
		switch _, err := whoami(); {
		case err == nil:
			return errors.New("it is still good")
		case !apierrors.IsUnauthorized(err):
			return fmt.Errorf("asking with it, want Unauthorized: %w", err)
		}
		return nil
	})
}
