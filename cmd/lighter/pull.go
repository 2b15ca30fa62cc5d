package main

import (
	"github.com/spf13/cobra"

	"lighter.dev/lighter/cmd/lighter/images"
)

func newPullCommand() *cobra.Command {
	options := images.PullOptions{}
	cmd := &cobra.Command{
		Use: "pull NAME[:TAG]", Short: "Pull an image from its registry to all hosts", Args: cobra.ExactArgs(1),
		Long: `Pulls an image to all Ready hosts, or to one of them. Nobody has to do this
before pods run: hosts pull what they miss. "lighter login" gives credentials.`,
	}
	cmd.Flags().StringVar(&options.Node, "node", "", "pull to this host only")
	cmd.Flags().BoolVarP(&options.Quiet, "quiet", "q", false, "no progress")
	return hostVerb(cmd, func(cmd *cobra.Command, cluster *images.Cluster, args []string) error {
		logins, err := images.LoadLogins()
		if err != nil {
			return err
		}
		if options.Credentials, err = logins.ForImage(args[0]); err != nil {
			return err
		}
		return cluster.Pull(cmd.Context(), args[0], options)
	})
}
