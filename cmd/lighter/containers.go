package main

import (
	"context"
	"os"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericclioptions"

	"lighter.dev/lighter/api/agentapi"
	"lighter.dev/lighter/cmd/lighter/containers"
	"lighter.dev/lighter/cmd/lighter/images"
)

// newContainerVerbs are the verbs on single containers, each in a file of its own.
func newContainerVerbs() []*cobra.Command {
	return []*cobra.Command{
		newRunCommand(), newPsCommand(), newPortCommand(), newStartCommand(), newStopCommand(), newRestartCommand(), newKillCommand(),
		newWaitCommand(), newRmCommand(), newRenameCommand(), newDiffCommand(), newTopCommand(), newStatsCommand(), newDebugCommand(),
	}
}

// containerVerb gives a command the flags that lead to a cluster, less those that
// Docker's verbs have for something else (-s, --user), and the cluster.
func containerVerb(cmd *cobra.Command, run func(ctx context.Context, c *containers.Cluster, args []string) error) *cobra.Command {
	flags := configFlags()
	flags.APIServer, flags.AuthInfoName, flags.Username, flags.Password = nil, nil, nil, nil
	flags.AddFlags(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		cluster, err := containerCluster(cmd, flags)
		if err != nil {
			return err
		}
		return run(cmd.Context(), cluster, args)
	}
	return cmd
}

func containerCluster(cmd *cobra.Command, flags *genericclioptions.ConfigFlags) (*containers.Cluster, error) {
	config, namespace, err := target(flags)
	if err != nil {
		return nil, err
	}
	cluster, err := containers.Connect(config, namespace)
	if err != nil {
		return nil, err
	}
	cluster.In, cluster.Out, cluster.Err = os.Stdin, cmd.OutOrStdout(), cmd.ErrOrStderr()
	cluster.Logins = func(image string) ([]agentapi.Credential, error) {
		logins, err := images.LoadLogins()
		if err != nil {
			return nil, err
		}
		found, err := logins.ForImage(image)
		return found.Credentials, err
	}
	return cluster, nil
}
