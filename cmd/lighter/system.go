package main

import (
	"github.com/spf13/cobra"

	"lighter.dev/lighter/cmd/lighter/images"
)

func newSystemCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "system", Short: "Show and free the room that images take on the hosts"}
	cmd.AddCommand(newUsageCommand(), newPruneImagesCommand())
	return cmd
}

func newUsageCommand() *cobra.Command {
	var verbose bool
	cmd := &cobra.Command{Use: "df", Short: "Show how much room images, containers and builds take", Args: cobra.NoArgs}
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "host by host")
	return hostVerb(cmd, func(cmd *cobra.Command, cluster *images.Cluster, _ []string) error {
		return cluster.Usage(cmd.Context(), verbose)
	})
}

func newPruneImagesCommand() *cobra.Command {
	options := images.PruneOptions{}
	cmd := &cobra.Command{
		Use: "prune", Short: "Remove images that nothing needs from all hosts", Args: cobra.NoArgs,
		Long: `Removes from all hosts images that have no name and that no container uses. What
Image objects declare stays: "lighter rmi" removes that.`,
	}
	cmd.Flags().BoolVarP(&options.All, "all", "a", false, "all that were pulled and that no container uses")
	cmd.Flags().DurationVar(&options.Until, "until", 0, "only what came longer ago than this, such as 24h")
	cmd.Flags().BoolVarP(&options.Force, "force", "f", false, "do not ask")
	return hostVerb(cmd, func(cmd *cobra.Command, cluster *images.Cluster, _ []string) error {
		return cluster.Prune(cmd.Context(), options)
	})
}
