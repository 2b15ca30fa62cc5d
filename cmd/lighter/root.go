package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

// usageError is a mistake on the command line: exit code 2.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// exitCode ends the program quietly with a code: the error has been shown.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// run executes a command line and returns the exit code: 0 for success, 1 for a
// failure, 2 for wrong usage, 130 when interrupted; exec and its kin pass on
// the code of what they ran.
func run(args []string) int {
	if forKubectl(args) {
		return runKubectl("lighter", podLine(args))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := newRootCommand()
	root.SetArgs(args)
	return codeOf(ctx, root.ExecuteContext(ctx))
}

func codeOf(ctx context.Context, err error) int {
	var code exitCode
	var child *exec.ExitError
	var usage usageError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &code):
		return int(code)
	case errors.As(err, &child) && child.ExitCode() >= 0:
		return child.ExitCode()
	}
	fmt.Fprintln(os.Stderr, "lighter:", err)
	switch {
	case errors.As(err, &usage), strings.HasPrefix(err.Error(), "unknown command"):
		return 2
	case ctx.Err() != nil:
		return 130
	}
	return 1
}

// newRootCommand lists every subcommand.
func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "lighter",
		Short: "Kubernetes' API on a light engine that also builds the images it runs",
		Long: `Lighter is a container orchestrator: Kubernetes' API on a light engine that
also builds the images it runs.

Start here:
  lighter local up --hosts 3           a cluster of three hosts on this machine
  lighter apply -f manifests/guestbook build, deploy, watch, get an address
  lighter get pods -o wide             every verb of kubectl works`,
		Version:       version,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%w (see '%s --help')", err, cmd.CommandPath())}
	})
	root.AddGroup(
		&cobra.Group{ID: "cluster", Title: "Clusters:"},
		&cobra.Group{ID: "work", Title: "Work on a cluster:"},
		&cobra.Group{ID: "containers", Title: "Containers, as with Docker:"},
		&cobra.Group{ID: "images", Title: "Images, as with Docker:"},
		&cobra.Group{ID: "kubectl", Title: "From kubectl:"},
	)
	add := func(group string, commands ...*cobra.Command) {
		for _, command := range commands {
			command.GroupID = group
			root.AddCommand(command)
		}
	}
	add("cluster", newLocalCommand(), newServerCommand(), newAgentCommand(), newTokenCommand())
	add("work", newApplyCommand())
	add("containers", newContainerVerbs()...)
	add("images", newBuildCommand(), newBuildKitCommand(), newImagesCommand(), newTagCommand(), newRemoveImageCommand(), newInspectCommand(), newHistoryCommand(),
		newPullCommand(), newPushCommand(), newLoginCommand(), newLogoutCommand(),
		newSaveCommand(), newLoadCommand(), newImportCommand(), newCommitCommand(), newSystemCommand(), newImageCommand())
	add("kubectl", newKubectlVerbs()...)
	root.AddCommand(newVersionCommand())
	countArguments(root)
	return root
}

// countArguments makes a wrong number of arguments a usage error, for a command
// and all below it.
func countArguments(cmd *cobra.Command) {
	if check := cmd.Args; check != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			if err := check(cmd, args); err != nil {
				return usageError{fmt.Errorf("%s: %w (see '%s --help')", cmd.Name(), err, cmd.CommandPath())}
			}
			return nil
		}
	}
	for _, sub := range cmd.Commands() {
		countArguments(sub)
	}
}
