package main

import (
	"github.com/spf13/cobra"

	"lighter.dev/lighter/api/agentapi"
	"lighter.dev/lighter/cmd/lighter/images"
)

// changeFlag adds what changes a new image's configuration.
func changeFlag(cmd *cobra.Command, edits *agentapi.Edits) {
	cmd.Flags().StringArrayVarP(&edits.Changes, "change", "c", nil, "instruction of a Dockerfile for the new image, such as 'CMD [\"sh\"]'; may be repeated")
}

func newCommitCommand() *cobra.Command {
	var edits agentapi.Edits
	var quiet bool
	cmd := &cobra.Command{
		Use: "commit POD[/CONTAINER] NAME[:TAG]", Short: "Make an image of a container's file system", Args: cobra.ExactArgs(2),
		Long: `Makes an image of what a container has written, on top of the image that it runs.
Containers that have ended will do, as long as their pod is there. Volumes are
not part of it.`,
	}
	cmd.Flags().StringVarP(&edits.Author, "author", "a", "", "author, such as \"Ann <ann@example.org>\"")
	cmd.Flags().StringVarP(&edits.Message, "message", "m", "", "what it is for, kept in its history")
	changeFlag(cmd, &edits)
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "no progress")
	return imageVerb(cmd, func(cmd *cobra.Command, cluster *images.Cluster, args []string) error {
		return cluster.Commit(cmd.Context(), args[0], args[1], edits, quiet)
	})
}
