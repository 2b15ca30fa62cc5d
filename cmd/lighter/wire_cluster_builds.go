package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/docker/cli/cli/config/configfile"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"lighter.dev/lighter/agent/build/buildclient"
	"lighter.dev/lighter/api/v1alpha1"
)

// clusterBuild builds Images that need nothing of a client, for the image
// reconciler: it is a client of images/build as any other, with files that the
// reconciler has, and the credentials that the namespace's pods pull with.
func clusterBuild(config *rest.Config, core kubernetes.Interface) func(context.Context, *v1alpha1.Image, map[string][]byte) error {
	return func(ctx context.Context, image *v1alpha1.Image, files map[string][]byte) error {
		logins, err := pullLogins(ctx, core, image.Namespace)
		if err != nil {
			return err
		}
		_, err = buildclient.Build(ctx, buildclient.Config{
			REST: config, Namespace: image.Namespace, Name: image.Name, Dockerfile: image.Spec.Dockerfile,
			Files: files, Logins: logins, Progress: buildclient.Quiet,
		})
		var failed *buildclient.Failure
		if errors.As(err, &failed) {
			return nil // the agent has written why
		}
		return err
	}
}

// pullLogins are those in the imagePullSecrets of a namespace's service account
// "default", where "lighter login --pull-secret" puts them. The first one for a
// registry counts. A secret that is not there is left out, as for pods.
func pullLogins(ctx context.Context, core kubernetes.Interface, namespace string) (*configfile.ConfigFile, error) {
	logins := configfile.New("")
	account, err := core.CoreV1().ServiceAccounts(namespace).Get(ctx, "default", metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return logins, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the service account default: %w", err)
	}
	for _, ref := range account.ImagePullSecrets {
		secret, err := core.CoreV1().Secrets(namespace).Get(ctx, ref.Name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) || err == nil && secret.Type != corev1.SecretTypeDockerConfigJson {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read imagePullSecrets: %w", err)
		}
		// Only its passwords: a Docker configuration may name programs to run.
		file := configfile.New("")
		if err := file.LoadFromReader(bytes.NewReader(secret.Data[corev1.DockerConfigJsonKey])); err != nil {
			return nil, fmt.Errorf("secret %s: key %s is no Docker configuration", secret.Name, corev1.DockerConfigJsonKey)
		}
		for host, login := range file.AuthConfigs {
			if _, known := logins.AuthConfigs[host]; !known {
				logins.AuthConfigs[host] = login
			}
		}
	}
	return logins, nil
}
