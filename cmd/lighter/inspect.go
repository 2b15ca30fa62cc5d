package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"lighter.dev/lighter/cmd/lighter/images"
)

func newInspectCommand() *cobra.Command {
	return inspectCommand("inspect NAME...", "Show images or containers in detail, as JSON", "")
}

func newInspectImageCommand() *cobra.Command {
	return inspectCommand("inspect NAME...", "Show images in detail, as JSON", "image")
}

func inspectCommand(use, short, kind string) *cobra.Command {
	options := images.InspectOptions{Type: kind}
	cmd := &cobra.Command{
		Use: use, Short: short, Args: cobra.MinimumNArgs(1),
		Example: "  lighter inspect shop:v1\n  lighter inspect -f '{{.State.Status}}' web",
	}
	cmd.Flags().StringVarP(&options.Format, "format", "f", "", "json or a Go template, such as '{{.Config.Cmd}}'")
	if kind == "" {
		cmd.Flags().StringVar(&options.Type, "type", "", "image or container (POD or POD/CONTAINER); whatever has the name if empty")
	}
	return hostVerb(cmd, func(cmd *cobra.Command, cluster *images.Cluster, args []string) error {
		switch options.Type {
		case "", "image", "container":
		default:
			return usageError{fmt.Errorf("--type=%s: must be image or container", options.Type)}
		}
		return cluster.Inspect(cmd.Context(), args, options)
	})
}
