package main

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"
	kubernetes "k8s.io/component-base/version"
)

// version is set by the build: -ldflags "-X main.version=v0.1.0".
var version = "devel"

func newVersionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the versions of lighter and of the Kubernetes API it serves",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			fmt.Fprintf(cmd.OutOrStdout(), "lighter %s (Kubernetes API %s, %s %s/%s)\n",
				version, kubernetes.Get().GitVersion, runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return nil
		},
	}
}
