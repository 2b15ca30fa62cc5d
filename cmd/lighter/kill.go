package main

import (
	"context"

	"github.com/spf13/cobra"

	"lighter.dev/lighter/cmd/lighter/containers"
)

func newKillCommand() *cobra.Command {
	var signal string
	cmd := &cobra.Command{
		Use: "kill CONTAINER...", Short: "Send containers a signal", Args: cobra.MinimumNArgs(1),
		Long: `Sends a signal to the first process of containers. After KILL and TERM a container
of "lighter run" stays stopped, whatever its restart policy.`,
	}
	cmd.Flags().StringVarP(&signal, "signal", "s", "KILL", "name or number of the signal")
	return containerVerb(cmd, func(ctx context.Context, c *containers.Cluster, args []string) error {
		return c.Kill(ctx, args, signal)
	})
}
