package main

import (
	"context"

	"github.com/spf13/cobra"

	"lighter.dev/lighter/cmd/lighter/containers"
)

func newRenameCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "rename CONTAINER NAME", Short: "Give a container another name", Args: cobra.ExactArgs(2),
		Long: `Gives a container another name, by which the verbs on containers find it. Its pod
keeps the name that it has, as Kubernetes knows no other.`,
	}
	return containerVerb(cmd, func(ctx context.Context, c *containers.Cluster, args []string) error {
		return c.Rename(ctx, args[0], args[1])
	})
}
