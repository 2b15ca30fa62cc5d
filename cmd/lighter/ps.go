package main

import (
	"context"

	"github.com/spf13/cobra"

	"lighter.dev/lighter/cmd/lighter/containers"
)

func newPsCommand() *cobra.Command {
	o := containers.ListOptions{}
	cmd := &cobra.Command{
		Use: "ps", Short: "List containers", Args: cobra.NoArgs,
		Long: `Lists the running containers of the namespace: those of "lighter run" and those of
other pods, which are named POD or POD/CONTAINER.`,
	}
	f := cmd.Flags()
	f.BoolVarP(&o.All, "all", "a", false, "also those that do not run")
	f.BoolVarP(&o.Quiet, "quiet", "q", false, "print names only")
	f.BoolVarP(&o.AllNamespaces, "all-namespaces", "A", false, "of all namespaces")
	f.BoolVar(&o.Full, "no-trunc", false, "print commands in full")
	f.StringVar(&o.Format, "format", "table", "table, or json: one document a line")
	return containerVerb(cmd, func(ctx context.Context, c *containers.Cluster, _ []string) error { return c.List(ctx, o) })
}
