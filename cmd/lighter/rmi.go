package main

import (
	"github.com/spf13/cobra"

	"lighter.dev/lighter/cmd/lighter/images"
)

func newRemoveImageCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: "rmi NAME...", Short: "Remove images", Args: cobra.MinimumNArgs(1),
		Long: `Takes a name away from the Image object that declares it, and removes the object
with its last name. An image that was pulled is removed from all hosts.`,
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "also if pods use it, and by a digest with several names")
	return hostVerb(cmd, func(cmd *cobra.Command, cluster *images.Cluster, args []string) error {
		return cluster.Remove(cmd.Context(), args, force)
	})
}
