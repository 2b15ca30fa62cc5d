package main

import (
	"github.com/spf13/cobra"

	"lighter.dev/lighter/api/agentapi"
	"lighter.dev/lighter/cmd/lighter/images"
)

func newImportCommand() *cobra.Command {
	var edits agentapi.Edits
	var quiet bool
	cmd := &cobra.Command{
		Use: "import FILE|- NAME[:TAG]", Short: "Make an image of an archive with a root file system", Args: cobra.ExactArgs(2),
		Example: "  tar -C rootfs -c . | lighter import - base:v1",
	}
	cmd.Flags().StringVarP(&edits.Message, "message", "m", "", "what it is for, kept in its history")
	changeFlag(cmd, &edits)
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "no progress")
	return imageVerb(cmd, func(cmd *cobra.Command, cluster *images.Cluster, args []string) error {
		return cluster.Import(cmd.Context(), args[0], args[1], edits, quiet)
	})
}
