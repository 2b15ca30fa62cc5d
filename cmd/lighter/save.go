package main

import (
	"github.com/spf13/cobra"

	"lighter.dev/lighter/cmd/lighter/images"
)

func newSaveCommand() *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use: "save [-o FILE] IMAGE...", Short: "Write images to an archive", Args: cobra.MinimumNArgs(1),
		Long: `Writes images to one archive, an OCI image layout that "docker load" reads, too,
with the names that you give: a name without a tag means all of its tags.`,
	}
	cmd.Flags().StringVarP(&path, "output", "o", "", "file to write; standard output if empty")
	return hostVerb(cmd, func(cmd *cobra.Command, cluster *images.Cluster, args []string) error {
		return cluster.Save(cmd.Context(), args, path)
	})
}
