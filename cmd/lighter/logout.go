package main

import (
	"strings"

	"github.com/spf13/cobra"

	"lighter.dev/lighter/cmd/lighter/images"
)

func newLogoutCommand() *cobra.Command {
	return &cobra.Command{
		Use: "logout [REGISTRY]", Short: "Forget the login at a registry", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			logins, err := images.LoadLogins()
			if err != nil {
				return err
			}
			return logins.Logout(cmd.OutOrStdout(), images.CleanRegistry(strings.Join(args, "")))
		},
	}
}
