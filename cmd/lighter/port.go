package main

import (
	"context"

	"github.com/spf13/cobra"

	"lighter.dev/lighter/cmd/lighter/containers"
)

func newPortCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "port CONTAINER [PORT[/PROTOCOL]]", Short: "Show where a container's ports are published", Args: cobra.RangeArgs(1, 2),
		Long: `Shows at which address of its host each port of a container is published, also
those that "lighter run -p PORT" has chosen.`,
	}
	return containerVerb(cmd, func(ctx context.Context, c *containers.Cluster, args []string) error {
		return c.Port(ctx, args[0], append(args, "")[1])
	})
}
