package main

import (
	"github.com/spf13/cobra"

	"lighter.dev/lighter/cmd/lighter/images"
)

func newHistoryCommand() *cobra.Command {
	format := images.Format{}
	cmd := &cobra.Command{Use: "history IMAGE", Short: "Show how an image was made", Args: cobra.ExactArgs(1)}
	formatFlags(cmd, &format)
	return imageVerb(cmd, func(cmd *cobra.Command, cluster *images.Cluster, args []string) error {
		if err := oneFormat(format); err != nil {
			return err
		}
		return cluster.History(cmd.Context(), args[0], format)
	})
}
