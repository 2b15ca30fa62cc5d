package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"sigs.k8s.io/yaml"

	"lighter.dev/lighter/cmd/lighter/configfile"
	"lighter.dev/lighter/cmd/lighter/local"
)

// localFlags name the cluster that a subcommand works on.
type localFlags struct{ name, dir string }

func (f *localFlags) load() (*local.Cluster, error) { return local.Load(f.name, f.dir) }

func newLocalCommand() *cobra.Command {
	flags := &localFlags{}
	cmd := &cobra.Command{
		Use: "local", Short: "Run a cluster of several hosts on this machine",
		Long: `Runs a cluster of several hosts on this machine. A host is a set of namespaces
with its own network, mounts, cgroups and data, joined to the others by a switch.
Hosts can be killed and cut off from one another, to see what the cluster does.`,
	}
	cmd.PersistentFlags().StringVar(&flags.name, "name", "local", "the cluster's name")
	cmd.PersistentFlags().StringVar(&flags.dir, "dir", "", "where its data lives (default "+local.DataRoot+"/NAME)")
	cmd.AddCommand(newLocalUp(flags), newLocalDown(flags), newLocalList(), newLocalExec(flags),
		newLocalKill(flags), newLocalStop(flags), newLocalStart(flags), newLocalCut(flags), newLocalHeal(flags),
		newLocalKubeconfig(flags), newLocalLogs(flags))
	return cmd
}

func newLocalUp(flags *localFlags) *cobra.Command {
	spec := local.Spec{}
	var timeout time.Duration
	var config string
	cmd := &cobra.Command{
		Use: "up", Short: "Make a cluster, or complete and start one that exists", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			spec.Name, spec.Dir = flags.name, flags.dir
			if config != "" {
				var err error
				if spec.Settings, err = readLocalSettings(config); err != nil {
					return err
				}
			}
			ctx, cancel := context.WithTimeoutCause(cmd.Context(), timeout, fmt.Errorf("not ready within %s (--timeout)", timeout))
			defer cancel()
			start := time.Now()
			cluster, err := local.Up(ctx, spec, &local.Lighter{}, stopwatch(cmd.OutOrStdout(), start))
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "cluster %s: %d hosts Ready after %.1f s\nexport KUBECONFIG=%s\n", cluster.Name, len(cluster.Hosts), time.Since(start).Seconds(), cluster.Kubeconfig())
			return nil
		},
	}
	cmd.Flags().IntVar(&spec.Hosts, "hosts", 0, "how many hosts (default 1, or as many as there are)")
	cmd.Flags().IntVar(&spec.Servers, "servers", 0, "how many of them run the control plane: an odd number (default 1, or as many as there are)")
	cmd.Flags().StringVar(&config, "config", "", "file of settings as in "+agentConfigFile+", for the daemons of all hosts from their next start on; kept in the cluster")
	cmd.Flags().DurationVar(&timeout, "timeout", 2*time.Minute, "how long to wait until all hosts are Ready")
	return cmd
}

// readLocalSettings reads settings for the agents of all hosts and checks their
// values. Files that they name are not looked at: hosts have a /var and a /run of
// their own.
func readLocalSettings(path string) (map[string]any, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, usageError{fmt.Errorf("--config: %w", err)}
	}
	var options agentDaemonOptions
	flags := pflag.NewFlagSet("agent", pflag.ContinueOnError)
	options.addFlags(flags)
	if err := configfile.Apply(flags, path, content); err != nil {
		return nil, usageError{err}
	}
	_, err = options.handler(io.Discard)
	if err := errors.Join(err, options.agentOptions.check()); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	settings := map[string]any{}
	return settings, yaml.Unmarshal(content, &settings)
}

// stopwatch prints each step with the time since start.
func stopwatch(out io.Writer, start time.Time) local.Report {
	return func(format string, args ...any) {
		fmt.Fprintf(out, "%6.2f s  %s\n", time.Since(start).Seconds(), fmt.Sprintf(format, args...))
	}
}

func newLocalDown(flags *localFlags) *cobra.Command {
	return &cobra.Command{
		Use: "down", Short: "Remove a cluster with all its data", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cluster, err := flags.load()
			if errors.Is(err, local.ErrNoCluster) {
				fmt.Fprintln(cmd.ErrOrStderr(), "nothing to do:", err)
				return nil
			} else if err != nil {
				return err
			}
			return cluster.Down()
		},
	}
}

func newLocalList() *cobra.Command {
	return &cobra.Command{
		Use: "ls", Aliases: []string{"list"}, Short: "List clusters and their hosts", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			clusters, err := local.List()
			if err != nil {
				return err
			}
			table := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 4, 3, ' ', 0)
			fmt.Fprintln(table, "CLUSTER\tHOST\tROLE\tADDRESS\tSTATE\tPROCESSES\tCUT FROM")
			for _, cluster := range clusters {
				hosts, err := cluster.Status()
				if err != nil {
					return err
				}
				for _, host := range hosts {
					fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%d\t%s\n", cluster.Name, host.Name, host.Role, host.IP, host.State, host.PIDs, cutFrom(cluster, host.Name))
				}
			}
			return table.Flush()
		},
	}
}

func cutFrom(cluster *local.Cluster, host string) string {
	var from []string
	for _, cut := range cluster.Cuts {
		switch {
		case cut.A == host && cut.B == "":
			from = append(from, "all")
		case cut.A == host:
			from = append(from, cut.B)
		case cut.B == host:
			from = append(from, cut.A)
		}
	}
	return strings.Join(from, ",")
}

func newLocalExec(flags *localFlags) *cobra.Command {
	return &cobra.Command{
		Use: "exec HOST -- COMMAND [ARG...]", Short: "Run a command on a host", Args: cobra.MinimumNArgs(2),
		Example: "  lighter local exec host-2 -- nft list ruleset",
		RunE: func(cmd *cobra.Command, args []string) error {
			cluster, err := flags.load()
			if err != nil {
				return err
			}
			return cluster.Exec(args[0], args[1:], os.Stdin, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
}

func newLocalKill(flags *localFlags) *cobra.Command {
	var daemonOnly bool
	cmd := onHosts(flags, "kill HOST...", "Switch hosts off as a power loss does", func(_ *cobra.Command, c *local.Cluster, host string) error {
		if daemonOnly {
			return c.KillDaemon(host)
		}
		return c.Kill(host)
	})
	cmd.Flags().BoolVar(&daemonOnly, "daemon", false, "SIGKILL the lighter process alone; containers run on")
	return cmd
}

func newLocalStop(flags *localFlags) *cobra.Command {
	var daemonOnly bool
	cmd := onHosts(flags, "stop HOST...", "Shut hosts down in order", func(_ *cobra.Command, c *local.Cluster, host string) error {
		return c.Stop(host, daemonOnly)
	})
	cmd.Flags().BoolVar(&daemonOnly, "daemon", false, "stop the lighter process alone; containers run on")
	return cmd
}

func newLocalStart(flags *localFlags) *cobra.Command {
	return onHosts(flags, "start HOST...", "Start hosts, or their lighter process, again", func(cmd *cobra.Command, c *local.Cluster, host string) error {
		return c.Start(cmd.Context(), host, &local.Lighter{}, stopwatch(cmd.OutOrStdout(), time.Now()))
	})
}

// onHosts makes a subcommand that does the same to each host it is given.
func onHosts(flags *localFlags, use, short string, do func(cmd *cobra.Command, c *local.Cluster, host string) error) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cluster, err := flags.load()
			if err != nil {
				return err
			}
			for _, host := range args {
				if err := do(cmd, cluster, host); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func newLocalCut(flags *localFlags) *cobra.Command {
	return &cobra.Command{
		Use: "cut HOST [HOST]", Short: "Break the network between two hosts, or around one", Args: cobra.RangeArgs(1, 2),
		RunE: func(_ *cobra.Command, args []string) error {
			cluster, err := flags.load()
			if err != nil {
				return err
			}
			return cluster.CutLink(args[0], strings.Join(args[1:], ""))
		},
	}
}

func newLocalHeal(flags *localFlags) *cobra.Command {
	return &cobra.Command{
		Use: "heal", Short: "Mend all cuts", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			cluster, err := flags.load()
			if err != nil {
				return err
			}
			return cluster.Heal()
		},
	}
}

func newLocalKubeconfig(flags *localFlags) *cobra.Command {
	var pathOnly bool
	cmd := &cobra.Command{
		Use: "kubeconfig", Short: "Print the admin's kubeconfig", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cluster, err := flags.load()
			if err != nil {
				return err
			}
			// Should none answer, the file that there is has to do.
			_ = cluster.RefreshKubeconfig(cmd.Context())
			if pathOnly {
				fmt.Fprintln(cmd.OutOrStdout(), cluster.Kubeconfig())
				return nil
			}
			content, err := os.ReadFile(cluster.Kubeconfig())
			if err != nil {
				return err
			}
			_, err = cmd.OutOrStdout().Write(content)
			return err
		},
	}
	cmd.Flags().BoolVar(&pathOnly, "path", false, "print where it is instead")
	return cmd
}

func newLocalLogs(flags *localFlags) *cobra.Command {
	var follow bool
	cmd := &cobra.Command{
		Use: "logs HOST", Short: "Print what a host's lighter process said", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cluster, err := flags.load()
			if err != nil {
				return err
			}
			if _, err := cluster.Host(args[0]); err != nil {
				return err
			}
			return local.CopyLog(cmd.Context(), cmd.OutOrStdout(), cluster.LogFile(args[0]), follow)
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on as it says more")
	return cmd
}
