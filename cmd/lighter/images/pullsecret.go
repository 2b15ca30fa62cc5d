package images

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/docker/cli/cli/config/types"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/retry"
)

// defaultAccount is the ServiceAccount of pods that name none.
const defaultAccount = "default"

// PullSecretName is the name of a registry's pull secret unless one is given.
func PullSecretName(registry string) string {
	return "pull-" + strings.Trim(strings.NewReplacer(":", "-", "[", "", "]", "").Replace(strings.ToLower(registry)), "-")
}

// PullSecret keeps a login as a Secret of the namespace, and lets the pods of its
// default ServiceAccount pull with it. Pods that are created from now on have it.
func (c *Cluster) PullSecret(ctx context.Context, name, registry string, login types.AuthConfig) error {
	if err := c.writeSecret(ctx, name, registry, login); err != nil {
		return fmt.Errorf("secret %s in namespace %s: %w", name, c.Namespace, err)
	}
	if err := c.useSecret(ctx, name); err != nil {
		return fmt.Errorf("let the ServiceAccount %q of namespace %s pull with secret %s: %w", defaultAccount, c.Namespace, name, err)
	}
	fmt.Fprintf(c.Out, "Pods in namespace %s pull from %s with secret %s\n", c.Namespace, registry, name)
	return nil
}

func (c *Cluster) writeSecret(ctx context.Context, name, registry string, login types.AuthConfig) error {
	api := c.Kube.CoreV1().Secrets(c.Namespace)
	return retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		secret, err := api.Get(ctx, name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
			secret = &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}, Type: corev1.SecretTypeDockerConfigJson}
			if err := addLogin(secret, registry, login); err != nil {
				return err
			}
			_, err = api.Create(ctx, secret, metav1.CreateOptions{})
			return err
		case err != nil:
			return err
		case secret.Type != corev1.SecretTypeDockerConfigJson:
			return fmt.Errorf("it exists and is of type %s: give another name (--pull-secret=NAME)", secret.Type)
		}
		if err := addLogin(secret, registry, login); err != nil {
			return err
		}
		_, err = api.Update(ctx, secret, metav1.UpdateOptions{})
		return err
	})
}

// addLogin puts a login beside those that the secret has already.
func addLogin(secret *corev1.Secret, registry string, login types.AuthConfig) error {
	var doc struct {
		Auths map[string]json.RawMessage `json:"auths"`
	}
	if content := secret.Data[corev1.DockerConfigJsonKey]; len(content) > 0 {
		if err := json.Unmarshal(content, &doc); err != nil {
			return fmt.Errorf("key %s: %w", corev1.DockerConfigJsonKey, err)
		}
	}
	entry, err := json.Marshal(map[string]string{"username": login.Username, "password": login.Password})
	if err != nil {
		return err
	}
	if doc.Auths == nil {
		doc.Auths = map[string]json.RawMessage{}
	}
	doc.Auths[configKey(registry)] = entry
	content, err := json.Marshal(doc)
	if err != nil {
		return err
	}
	if secret.Data == nil {
		secret.Data = map[string][]byte{}
	}
	secret.Data[corev1.DockerConfigJsonKey] = content
	return nil
}

func (c *Cluster) useSecret(ctx context.Context, name string) error {
	api := c.Kube.CoreV1().ServiceAccounts(c.Namespace)
	return retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		account, err := api.Get(ctx, defaultAccount, metav1.GetOptions{})
		if err != nil {
			return err
		}
		ref := corev1.LocalObjectReference{Name: name}
		if slices.Contains(account.ImagePullSecrets, ref) {
			return nil
		}
		account.ImagePullSecrets = append(account.ImagePullSecrets, ref)
		_, err = api.Update(ctx, account, metav1.UpdateOptions{})
		return err
	})
}
