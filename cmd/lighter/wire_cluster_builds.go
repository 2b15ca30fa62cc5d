package main

import (
	"context"
	"errors"

	"k8s.io/client-go/rest"

	"lighter.dev/lighter/agent/build/buildclient"
	"lighter.dev/lighter/api/v1alpha1"
)

// clusterBuild builds Images that need nothing of a client, for the image
// reconciler: it is a client of images/build as any other, with files that the
// reconciler has, and without credentials.
func clusterBuild(config *rest.Config) func(context.Context, *v1alpha1.Image, map[string][]byte) error {
	return func(ctx context.Context, image *v1alpha1.Image, files map[string][]byte) error {
		_, err := buildclient.Build(ctx, buildclient.Config{
			REST: config, Namespace: image.Namespace, Name: image.Name, Dockerfile: image.Spec.Dockerfile,
			Files: files, NoLogins: true, Progress: buildclient.Quiet,
		})
		var failed *buildclient.Failure
		if errors.As(err, &failed) {
			return nil // the agent has written why
		}
		return err
	}
}
