package main

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
)

// TestPullLogins: the secrets of the service account, in their order, without the
// programs that a Docker configuration can name.
func TestPullLogins(t *testing.T) {
	secret := func(name, content string) *corev1.Secret {
		return &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "shop"}, Type: corev1.SecretTypeDockerConfigJson,
			Data: map[string][]byte{corev1.DockerConfigJsonKey: []byte(content)},
		}
	}
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default", Namespace: "shop"}}
	for _, name := range []string{"first", "gone", "second"} {
		account.ImagePullSecrets = append(account.ImagePullSecrets, corev1.LocalObjectReference{Name: name})
	}
	// ann:one, eve:three and bob:two
	first := secret("first", `{"auths": {"a.example": {"auth": "YW5uOm9uZQ=="}}, "credsStore": "evil", "credHelpers": {"b.example": "evil"}}`)
	second := secret("second", `{"auths": {"a.example": {"auth": "ZXZlOnRocmVl"}, "b.example": {"auth": "Ym9iOnR3bw=="}}}`)
	logins, err := pullLogins(t.Context(), fake.NewClientset(account, first, second), "shop")
	if err != nil {
		t.Fatal(err)
	}
	for host, want := range map[string]string{"a.example": "ann one", "b.example": "bob two", "c.example": " "} {
		got, err := logins.GetAuthConfig(host)
		if err != nil || got.Username+" "+got.Password != want {
			t.Errorf("%s: %q, %v; want %q", host, got.Username+" "+got.Password, err, want)
		}
	}
	if logins, err := pullLogins(t.Context(), fake.NewClientset(), "shop"); err != nil || len(logins.AuthConfigs) != 0 {
		t.Errorf("without a service account: %v, %v", logins, err)
	}
	_, err = pullLogins(t.Context(), fake.NewClientset(account, secret("first", `{"auths": {"a.example": {"auth": "hush"`)), "shop")
	if err == nil || !strings.Contains(err.Error(), "secret first") || strings.Contains(err.Error(), "hush") {
		t.Errorf("a broken secret: %v", err)
	}
}
