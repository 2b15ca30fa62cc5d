package main

import (
	"github.com/spf13/cobra"

	"lighter.dev/lighter/cmd/lighter/images"
)

func newTagCommand() *cobra.Command {
	return imageVerb(&cobra.Command{
		Use: "tag SOURCE NAME[:TAG]", Short: "Give an image another name", Args: cobra.ExactArgs(2),
		Long: `Makes an Image object that declares the new name, so that it means the same on
all hosts. It keeps the version that SOURCE means now.`,
		Example: "  lighter tag shop:latest registry.example/shop:v1",
	}, func(cmd *cobra.Command, cluster *images.Cluster, args []string) error {
		return cluster.Tag(cmd.Context(), args[0], args[1])
	})
}
