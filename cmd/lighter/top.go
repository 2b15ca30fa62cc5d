package main

import (
	"context"

	"github.com/spf13/cobra"

	"lighter.dev/lighter/cmd/lighter/containers"
)

func newTopCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "top CONTAINER", Short: "List the processes of a container", Args: cobra.ExactArgs(1),
		Long: `Lists the processes of a container by its host's numbers. The image needs no ps.
"lighter stats" says what containers use.`,
	}
	return containerVerb(cmd, func(ctx context.Context, c *containers.Cluster, args []string) error { return c.Top(ctx, args[0]) })
}
