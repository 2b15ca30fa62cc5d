package main

import (
	"context"

	"github.com/spf13/cobra"

	"lighter.dev/lighter/cmd/lighter/containers"
)

func newStopCommand() *cobra.Command {
	var seconds int64
	cmd := &cobra.Command{
		Use: "stop CONTAINER...", Short: "Stop containers; they keep address, volumes and files", Args: cobra.MinimumNArgs(1),
	}
	timeFlag(cmd, &seconds)
	return containerVerb(cmd, func(ctx context.Context, c *containers.Cluster, args []string) error {
		return c.Stop(ctx, args, givenSeconds(cmd, &seconds))
	})
}

const timeName = "time"

// timeFlag is how long a container may take to stop.
func timeFlag(cmd *cobra.Command, seconds *int64) {
	cmd.Flags().Int64VarP(seconds, timeName, "t", 0, "seconds between the stop signal and SIGKILL (default: the container's own, 10); -1 for ever")
}

// givenSeconds is nil if the flag was not given.
func givenSeconds(cmd *cobra.Command, seconds *int64) *int64 {
	if !cmd.Flags().Changed(timeName) {
		return nil
	}
	return seconds
}
