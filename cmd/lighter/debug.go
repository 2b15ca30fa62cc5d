package main

import (
	"context"
	"errors"
	"io"

	"github.com/spf13/cobra"

	"lighter.dev/lighter/cmd/lighter/containers"
	"lighter.dev/lighter/cmd/lighter/images"
)

func newDebugCommand() *cobra.Command {
	var failed string
	cmd := &cobra.Command{
		Use: "debug --from-failed POD[/CONTAINER]", Short: "Look into a container that has failed", Args: cobra.NoArgs,
		Long: `Runs a shell (the image's /bin/sh) on the files of a container that has failed, as
it left them, on its host. The shell has the container's environment, but not its
volumes. What is made for that, an image and a container, is gone afterwards.

kubectl's debug is "lighter kubectl debug".`,
	}
	cmd.Flags().StringVar(&failed, "from-failed", "", "the pod whose container has failed")
	return containerVerb(cmd, func(ctx context.Context, c *containers.Cluster, _ []string) error {
		if failed == "" {
			return usageError{errors.New("say which container has failed: --from-failed POD (kubectl's debug is \"lighter kubectl debug\")")}
		}
		kept, err := images.Connect(c.REST, c.Namespace)
		if err != nil {
			return err
		}
		kept.In, kept.Out, kept.Err = c.In, io.Discard, c.Err
		return ended(c, func() (int, error) { return c.DebugFailed(ctx, failed, kept) })
	})
}
