package main

import (
	"context"

	"github.com/spf13/cobra"

	"lighter.dev/lighter/cmd/lighter/containers"
)

func newRestartCommand() *cobra.Command {
	var seconds int64
	cmd := &cobra.Command{Use: "restart CONTAINER...", Short: "Stop containers and start them again", Args: cobra.MinimumNArgs(1)}
	timeFlag(cmd, &seconds)
	return containerVerb(cmd, func(ctx context.Context, c *containers.Cluster, args []string) error {
		return c.Restart(ctx, args, givenSeconds(cmd, &seconds))
	})
}
