package main

import (
	"github.com/spf13/cobra"

	"lighter.dev/lighter/cmd/lighter/images"
)

func newCommitCommand() *cobra.Command {
	var quiet bool
	cmd := &cobra.Command{
		Use: "commit POD[/CONTAINER] NAME[:TAG]", Short: "Make an image of a container's file system", Args: cobra.ExactArgs(2),
		Long: `Makes an image of what a container has written, on top of the image that it runs.
Containers that have ended will do, as long as their pod is there. Volumes are
not part of it.`,
	}
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "no progress")
	return imageVerb(cmd, func(cmd *cobra.Command, cluster *images.Cluster, args []string) error {
		return cluster.Commit(cmd.Context(), args[0], args[1], quiet)
	})
}
