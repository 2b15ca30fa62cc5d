package main

import (
	"encoding/json"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"lighter.dev/lighter/controller/servers"
)

func newServerList() *cobra.Command {
	flags := configFlags()
	cmd := &cobra.Command{
		Use: "ls", Aliases: []string{"list"}, Short: "List the servers of a cluster", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, client, err := connect(flags)
			if err != nil {
				return err
			}
			text, err := client.Discovery().RESTClient().Get().AbsPath(servers.Path).Do(cmd.Context()).Raw()
			if err != nil {
				return fmt.Errorf("list servers: %w", err)
			}
			var list servers.List
			if err := json.Unmarshal(text, &list); err != nil {
				return fmt.Errorf("list servers: %w", err)
			}
			table := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 4, 3, ' ', 0)
			fmt.Fprintln(table, "NAME\tADDRESS\tROLE\tLEADER\tHEALTHY")
			for _, s := range list.Servers {
				fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", s.Name, s.Address, s.Role, yes(s.Leader), health(s))
			}
			if err := table.Flush(); err != nil {
				return err
			}
			if list.Quorum != "" {
				fmt.Fprintln(cmd.ErrOrStderr(), list.Quorum)
			}
			return nil
		},
	}
	flags.AddFlags(cmd.Flags())
	return cmd
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return ""
}

func health(s servers.Info) string {
	if s.Healthy {
		return "yes"
	}
	return "no: " + s.Problem
}

func newServerRemove() *cobra.Command {
	flags := configFlags()
	cmd := &cobra.Command{
		Use: "remove NAME", Aliases: []string{"rm"}, Short: "Take a server out of a cluster for good", Args: cobra.ExactArgs(1),
		Long: `Takes a server that is dead, or is to be, out of a cluster. It refuses if too few
would be left to decide. The host's Node stays: delete it with 'lighter delete node'.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			_, client, err := connect(flags)
			if err != nil {
				return err
			}
			if err := client.Discovery().RESTClient().Delete().AbsPath(servers.Path, args[0]).Do(cmd.Context()).Error(); err != nil {
				return fmt.Errorf("remove server %s: %w", args[0], err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "server %s is taken out\n", args[0])
			return nil
		},
	}
	flags.AddFlags(cmd.Flags())
	return cmd
}
