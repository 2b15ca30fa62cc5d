package main

import (
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericclioptions"

	"lighter.dev/lighter/cmd/lighter/images"
)

// nameFromRegistry is --pull-secret without a name.
const nameFromRegistry = " "

func newLoginCommand() *cobra.Command {
	options := images.LoginOptions{}
	var secret string
	// Without kubectl's deprecated --username and --password, which mean the cluster's.
	flags := genericclioptions.NewConfigFlags(true)
	cmd := &cobra.Command{
		Use: "login [REGISTRY]", Short: "Log in to a registry", Args: cobra.MaximumNArgs(1),
		Long: `Asks the registry whether it takes the password, and keeps it where Docker does:
in $DOCKER_CONFIG/config.json (by default in ~/.docker) or with the credential
helper that is named there. Without REGISTRY it is Docker's own.

--pull-secret also lets pods of the namespace pull with it: as a Secret that the
ServiceAccount "default" lists among its imagePullSecrets.`,
		Example: "  lighter login -u ann registry.example\n  lighter login -u ann --password-stdin --pull-secret registry.example < password",
		RunE: func(cmd *cobra.Command, args []string) error {
			options.Registry = images.CleanRegistry(strings.Join(args, ""))
			options.In, options.Out, options.Err = cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr()
			logins, err := images.LoadLogins()
			if err != nil {
				return err
			}
			login, err := logins.Login(cmd.Context(), options)
			if err != nil || secret == "" {
				return err
			}
			cluster, err := imageCluster(cmd, flags)
			if err != nil {
				return err
			}
			if secret == nameFromRegistry {
				secret = images.PullSecretName(options.Registry)
			}
			return cluster.PullSecret(cmd.Context(), secret, options.Registry, login)
		},
	}
	flags.AddFlags(cmd.Flags())
	f := cmd.Flags()
	f.StringVarP(&options.Username, "username", "u", "", "user name at the registry")
	f.StringVarP(&options.Password, "password", "p", "", "password or token; others of this machine see it: better --password-stdin")
	f.BoolVar(&options.PasswordStdin, "password-stdin", false, "read the password from standard input")
	f.StringVar(&options.CAFile, "ca-file", "", "file with certificates (PEM) of the registry's authority, beside the system's")
	f.StringVar(&secret, "pull-secret", "", "also keep it as this Secret, for pods of the namespace")
	f.Lookup("pull-secret").NoOptDefVal = nameFromRegistry
	return cmd
}
