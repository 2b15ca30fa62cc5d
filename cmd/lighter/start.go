package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"lighter.dev/lighter/cmd/lighter/containers"
)

func newStartCommand() *cobra.Command {
	var attach, stdin bool
	cmd := &cobra.Command{
		Use: "start CONTAINER...", Short: "Start stopped containers, on the files that they left", Args: cobra.MinimumNArgs(1),
	}
	cmd.Flags().BoolVarP(&attach, "attach", "a", false, "stay with the container, and end with its code")
	cmd.Flags().BoolVarP(&stdin, "interactive", "i", false, "with its input as well")
	return containerVerb(cmd, func(ctx context.Context, c *containers.Cluster, args []string) error {
		if !attach && !stdin {
			return c.Start(ctx, args)
		}
		if len(args) > 1 {
			return usageError{errors.New("-a and -i are for one container")}
		}
		return ended(c, func() (int, error) { return c.StartAttached(ctx, args[0], stdin) })
	})
}
