package main

import (
	"context"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"lighter.dev/lighter/cmd/lighter/containers"
)

// wait and diff are verbs of Docker and of kubectl. A flag that kubectl's cannot do
// without tells which is meant.

func newWaitCommand() *cobra.Command {
	docker := containerVerb(&cobra.Command{
		Use: "wait CONTAINER...", Args: cobra.MinimumNArgs(1),
	}, func(ctx context.Context, c *containers.Cluster, args []string) error { return c.Wait(ctx, args) })
	return shared(docker, "Wait for containers to end, or for a condition", `Waits until containers have ended, and prints their exit codes. With --for it is
kubectl's verb: see "lighter kubectl wait --help".`, "--for")
}

func newDiffCommand() *cobra.Command {
	docker := containerVerb(&cobra.Command{
		Use: "diff CONTAINER", Args: cobra.ExactArgs(1),
	}, func(ctx context.Context, c *containers.Cluster, args []string) error { return c.Diff(ctx, args[0]) })
	return shared(docker, "Show what a container has changed on its files, or compare a manifest with the cluster", `Shows what a container has changed on its file system, against its image: A for
added, C for changed, D for deleted. With -f or -k it is kubectl's verb: see
"lighter kubectl diff --help".`, "-f", "--filename", "-k", "--kustomize")
}

// shared is kubectl's verb of the same name if one of these flags is given.
func shared(docker *cobra.Command, short, long string, kubectls ...string) *cobra.Command {
	docker.Short, docker.Long = short, long
	run, args := docker.RunE, docker.Args
	docker.Args, docker.DisableFlagParsing = cobra.ArbitraryArgs, true
	docker.RunE = func(cmd *cobra.Command, line []string) error {
		if slices.ContainsFunc(line, func(arg string) bool { return isFlag(arg, kubectls) }) {
			return exitCode(runKubectl("lighter", os.Args[1:]))
		}
		cmd.DisableFlagParsing = false
		if err := cmd.ParseFlags(line); err != nil {
			return cmd.FlagErrorFunc()(cmd, err)
		}
		if help, _ := cmd.Flags().GetBool("help"); help {
			return cmd.Help()
		}
		rest := cmd.Flags().Args()
		if err := args(cmd, rest); err != nil {
			return usageError{err}
		}
		return run(cmd, rest)
	}
	return docker
}

// isFlag tells --flag, --flag=value, -f and -fvalue.
func isFlag(arg string, flags []string) bool {
	for _, flag := range flags {
		long := strings.HasPrefix(flag, "--")
		if arg == flag || long && strings.HasPrefix(arg, flag+"=") || !long && strings.HasPrefix(arg, flag) && !strings.HasPrefix(arg, "--") {
			return true
		}
	}
	return false
}
