package main

import (
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericclioptions"

	"lighter.dev/lighter/cmd/lighter/images"
)

// imageCluster is the cluster that the flags lead to, for verbs on images.
func imageCluster(cmd *cobra.Command, flags *genericclioptions.ConfigFlags) (*images.Cluster, error) {
	config, namespace, err := target(flags)
	if err != nil {
		return nil, err
	}
	cluster, err := images.Connect(config, namespace)
	if err != nil {
		return nil, err
	}
	cluster.In, cluster.Out, cluster.Err = cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr()
	return cluster, nil
}

// runOnImages does a verb's work.
type runOnImages func(cmd *cobra.Command, cluster *images.Cluster, args []string) error

// hostVerb is imageVerb for what one host can do as well: --host leads to its agent.
func hostVerb(cmd *cobra.Command, run runOnImages) *cobra.Command {
	var host hostFlags
	host.addFlags(cmd.Flags())
	verb := imageVerb(cmd, run)
	onCluster := verb.RunE
	verb.RunE = func(cmd *cobra.Command, args []string) error {
		agent, err := host.client(os.Getenv)
		switch {
		case err != nil:
			return err
		case agent == nil:
			return onCluster(cmd, args)
		}
		namespace, _ := cmd.Flags().GetString("namespace") // "" is its default
		alone := images.OneHost(agent, namespace)
		alone.In, alone.Out, alone.Err = cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr()
		return run(cmd, alone, args)
	}
	return verb
}

// imageVerb is a command whose work needs a cluster and its arguments.
func imageVerb(cmd *cobra.Command, run runOnImages) *cobra.Command {
	flags := configFlags()
	flags.AddFlags(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		cluster, err := imageCluster(cmd, flags)
		if err != nil {
			return err
		}
		return run(cmd, cluster, args)
	}
	return cmd
}

// formatFlags are how lists are printed.
func formatFlags(cmd *cobra.Command, format *images.Format) {
	format.Now = time.Now()
	cmd.Flags().StringVar(&format.Template, "format", "table", "table, json or a Go template, such as '{{.Repository}}:{{.Tag}}'")
	cmd.Flags().BoolVarP(&format.Quiet, "quiet", "q", false, "print digests only")
	cmd.Flags().BoolVar(&format.Full, "no-trunc", false, "print everything in its full length")
}

func newImagesCommand() *cobra.Command {
	options := images.ListOptions{}
	cmd := &cobra.Command{
		Use: "images [REPOSITORY[:TAG]]", Short: "List the images of the cluster", Args: cobra.MaximumNArgs(1),
		Long: `Lists what the namespace's Image objects declare ("lighter build", "tag", "load",
"import" and "commit" make them) and what the hosts have pulled, with the hosts
that hold each image. Hosts that need an image fetch it from those by themselves.`,
		Example: "  lighter images\n  lighter images 'team/*'\n  lighter images --format '{{.Repository}}:{{.Tag}} {{.Hosts}}'",
	}
	formatFlags(cmd, &options.Format)
	cmd.Flags().BoolVarP(&options.All, "all", "a", false, "also images without a name")
	cmd.Flags().BoolVarP(&options.AllNamespaces, "all-namespaces", "A", false, "the Image objects of all namespaces")
	cmd.Flags().BoolVar(&options.Format.Digests, "digests", false, "print whole digests")
	return hostVerb(cmd, func(cmd *cobra.Command, cluster *images.Cluster, args []string) error {
		if err := oneFormat(options.Format); err != nil {
			return err
		}
		if len(args) > 0 {
			options.Filter = args[0]
		}
		return cluster.List(cmd.Context(), options)
	})
}

// newImageCommand has the verbs on images once more, by the names that
// "docker image" gives them.
func newImageCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "image", Short: "All verbs on images, as \"docker image\" names them"}
	for _, verb := range []struct {
		use  string
		make func() *cobra.Command
	}{
		{"ls [REPOSITORY[:TAG]]", newImagesCommand},
		{"rm NAME...", newRemoveImageCommand},
		{"inspect NAME...", newInspectImageCommand},
		{"prune", newPruneImagesCommand},
		{"", newTagCommand},
		{"", newHistoryCommand},
		{"", newSaveCommand},
		{"", newLoadCommand},
		{"", newImportCommand},
		{"", newPullCommand},
		{"", newPushCommand},
	} {
		sub := verb.make()
		if verb.use != "" {
			sub.Use = verb.use
		}
		cmd.AddCommand(sub)
	}
	return cmd
}

// oneFormat refuses two ways to print at once.
func oneFormat(format images.Format) error {
	if format.Quiet && format.Template != "table" {
		return usageError{fmt.Errorf("--quiet and --format=%s exclude one another", format.Template)}
	}
	return nil
}
