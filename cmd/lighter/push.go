package main

import (
	"github.com/spf13/cobra"

	"lighter.dev/lighter/cmd/lighter/images"
)

func newPushCommand() *cobra.Command {
	var quiet bool
	cmd := &cobra.Command{
		Use: "push NAME[:TAG]", Short: "Push an image to the registry in its name", Args: cobra.ExactArgs(1),
		Long: `Pushes from a host that holds the image. "lighter tag" gives an image a name that
leads to a registry, "lighter login" the right to push there.`,
		Example: "  lighter tag shop registry.example/shop:v1\n  lighter push registry.example/shop:v1",
	}
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "no progress")
	return hostVerb(cmd, func(cmd *cobra.Command, cluster *images.Cluster, args []string) error {
		logins, err := images.LoadLogins()
		if err != nil {
			return err
		}
		return cluster.Push(cmd.Context(), args[0], quiet, logins.For)
	})
}
