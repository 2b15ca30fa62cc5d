package containers

import (
	"context"
	"encoding/json"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// pullSecret makes a Secret of the user's login at the image's registry, and has
// the pod pull with it. It returns nil if there is no login.
func (c *Cluster) pullSecret(ctx context.Context, pod *corev1.Pod) (*corev1.Secret, error) {
	if c.Logins == nil {
		return nil, nil
	}
	logins, err := c.Logins(pod.Spec.Containers[0].Image)
	if err != nil || len(logins) == 0 {
		return nil, err
	}
	type entry struct {
		Username      string `json:"username,omitempty"`
		Password      string `json:"password,omitempty"`
		IdentityToken string `json:"identitytoken,omitempty"`
	}
	auths := map[string]entry{}
	for _, login := range logins {
		auths[login.Host] = entry{login.Username, login.Password, login.IdentityToken}
	}
	content, err := json.Marshal(map[string]any{"auths": auths})
	if err != nil {
		return nil, err
	}
	secret, err := c.Kube.CoreV1().Secrets(c.Namespace).Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "run-"},
		Type:       corev1.SecretTypeDockerConfigJson, Data: map[string][]byte{corev1.DockerConfigJsonKey: content},
	}, metav1.CreateOptions{})
	if err != nil {
		return nil, fmt.Errorf("give the container your login at its registry: %w", err)
	}
	pod.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: secret.Name}}
	return secret, nil
}

// giveSecret makes the secret go with its pod.
func (c *Cluster) giveSecret(ctx context.Context, secret *corev1.Secret, pod *corev1.Pod) error {
	if secret == nil {
		return nil
	}
	secret.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID}}
	if _, err := c.Kube.CoreV1().Secrets(c.Namespace).Update(ctx, secret, metav1.UpdateOptions{}); err != nil {
		return fmt.Errorf("let secret %s go with container %s: %w", secret.Name, pod.Name, err)
	}
	return nil
}

func (c *Cluster) dropSecret(ctx context.Context, secret *corev1.Secret) error {
	if secret == nil {
		return nil
	}
	err := c.Kube.CoreV1().Secrets(c.Namespace).Delete(ctx, secret.Name, metav1.DeleteOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
