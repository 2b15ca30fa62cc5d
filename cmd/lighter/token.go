package main

import (
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"lighter.dev/lighter/cmd/lighter/token"
)

// serverTokenLife is how long a token for servers is good unless told otherwise.
const serverTokenLife = time.Hour

func newTokenCommand() *cobra.Command {
	flags := configFlags()
	cmd := &cobra.Command{Use: "token", Short: "Make, list and delete tokens with which hosts join"}
	flags.AddFlags(cmd.PersistentFlags())
	cmd.AddCommand(newTokenCreate(flags), newTokenList(flags), newTokenDelete(flags))
	return cmd
}

func newTokenCreate(flags *genericclioptions.ConfigFlags) *cobra.Command {
	var options token.Options
	cmd := &cobra.Command{
		Use: "create", Short: "Make a token and print it", Args: cobra.NoArgs,
		Long: `Makes a token with which hosts join as agents, and prints it.

With --server it lets hosts join as servers instead, for an hour unless --ttl says
otherwise. Keep such a token as secret as the servers themselves: whoever holds it
can become the control plane.`,
		Example: `  lighter agent --server https://SERVER:6443 --token $(lighter token create)
  lighter server --join https://SERVER:6443 --token $(lighter token create --server)`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if options.Server && !cmd.Flags().Changed("ttl") {
				options.TTL = serverTokenLife
			}
			config, client, err := connect(flags)
			if err != nil {
				return err
			}
			ca, err := token.CA(config)
			if err != nil {
				return err
			}
			text, err := token.Create(cmd.Context(), client, ca, options)
			if err == nil {
				fmt.Fprintln(cmd.OutOrStdout(), text)
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&options.Server, "server", false, "for servers, not agents: whoever holds it can become the control plane")
	cmd.Flags().DurationVar(&options.TTL, "ttl", 24*time.Hour, "how long hosts may join with it; 0 for ever")
	cmd.Flags().StringVar(&options.Description, "description", "", "what it is for")
	return cmd
}

func newTokenList(flags *genericclioptions.ConfigFlags) *cobra.Command {
	return &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the tokens, without their secrets", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, client, err := connect(flags)
			if err != nil {
				return err
			}
			tokens, err := token.List(cmd.Context(), client)
			if err != nil {
				return err
			}
			table := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 4, 3, ' ', 0)
			fmt.Fprintln(table, "ID\tFOR\tEXPIRES\tDESCRIPTION")
			for _, t := range tokens {
				kind := "agents"
				if t.Server {
					kind = "servers"
				}
				fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", t.ID, kind, expiry(t.Expires, time.Now()), t.Description)
			}
			return table.Flush()
		},
	}
}

func expiry(at, now time.Time) string {
	switch {
	case at.IsZero():
		return "never"
	case at.Before(now):
		return "expired"
	}
	return "in " + at.Sub(now).Round(time.Minute).String()
}

func newTokenDelete(flags *genericclioptions.ConfigFlags) *cobra.Command {
	return &cobra.Command{
		Use: "delete TOKEN|ID...", Aliases: []string{"rm"}, Short: "Delete tokens: nobody joins with them any more", Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, client, err := connect(flags)
			if err != nil {
				return err
			}
			for _, arg := range args {
				if err := token.Delete(cmd.Context(), client, arg); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// connect turns the connection flags into a client.
func connect(flags *genericclioptions.ConfigFlags) (*rest.Config, kubernetes.Interface, error) {
	config, err := flags.ToRESTConfig()
	if err != nil {
		return nil, nil, err
	}
	client, err := kubernetes.NewForConfig(config)
	return config, client, err
}
