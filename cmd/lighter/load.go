package main

import (
	"github.com/spf13/cobra"

	"lighter.dev/lighter/cmd/lighter/images"
)

func newLoadCommand() *cobra.Command {
	var path string
	var quiet bool
	cmd := &cobra.Command{
		Use: "load [-i FILE]", Short: "Read images from an archive", Args: cobra.NoArgs,
		Long: `Reads an archive that "lighter save", "docker save" or a build made, plain or
compressed, and makes an Image object for each name in it.`,
	}
	cmd.Flags().StringVarP(&path, "input", "i", "", "file to read; standard input if empty")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "no progress")
	return imageVerb(cmd, func(cmd *cobra.Command, cluster *images.Cluster, _ []string) error {
		return cluster.Load(cmd.Context(), path, quiet)
	})
}
