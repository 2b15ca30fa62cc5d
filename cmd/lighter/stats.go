package main

import (
	"context"

	"github.com/spf13/cobra"

	"lighter.dev/lighter/cmd/lighter/containers"
)

func newStatsCommand() *cobra.Command {
	var once bool
	cmd := &cobra.Command{
		Use: "stats [CONTAINER...]", Short: "Show what running containers use, live",
		Long: "Shows the processor time and memory of running containers, every second. 100 % is one processor.",
	}
	cmd.Flags().BoolVar(&once, "no-stream", false, "only once")
	return containerVerb(cmd, func(ctx context.Context, c *containers.Cluster, args []string) error {
		return c.Stats(ctx, args, !once)
	})
}
