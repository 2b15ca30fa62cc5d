package main

import (
	"context"

	"github.com/spf13/cobra"

	"lighter.dev/lighter/cmd/lighter/containers"
)

func newRmCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{Use: "rm CONTAINER...", Short: "Remove containers with all that they have written", Args: cobra.MinimumNArgs(1)}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "also those that run")
	return containerVerb(cmd, func(ctx context.Context, c *containers.Cluster, args []string) error {
		return c.Remove(ctx, args, force)
	})
}
