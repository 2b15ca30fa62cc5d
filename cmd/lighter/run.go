package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"lighter.dev/lighter/cmd/lighter/containers"
)

func newRunCommand() *cobra.Command {
	o := containers.Options{}
	var entrypoint string
	cmd := &cobra.Command{
		Use: "run [flags] IMAGE [COMMAND [ARG...]]", Short: "Run a container", Args: cobra.MinimumNArgs(1),
		Long: `Runs a container as "docker run" does: a pod that keeps its host, address and
files when it is stopped. Without -d the command stays with it, passes signals on
and ends with the container's code; ctrl-p ctrl-q leaves a terminal.

A host path in -v is one of the container's host. A named volume is the folder
/var/lib/lighter/named-volumes/NAMESPACE/NAME of the host that --node names.`,
		Example: "  lighter run -d --name web -p 8080:80 nginx\n  lighter run --rm -it busybox sh\n  lighter run --rm busybox echo hello",
	}
	f := cmd.Flags()
	f.SetInterspersed(false) // what follows the image is the container's
	f.Bool("help", false, "help for run")
	f.BoolVarP(&o.Detach, "detach", "d", false, "do not stay with the container: print its name")
	f.BoolVarP(&o.Stdin, "interactive", "i", false, "keep the container's input open, and connect to it")
	f.BoolVarP(&o.TTY, "tty", "t", false, "give it a terminal")
	f.BoolVar(&o.Remove, "rm", false, "remove the container when it has ended")
	f.StringVar(&o.Name, "name", "", "name of the container; made up if empty")
	f.StringArrayVarP(&o.Publish, "publish", "p", nil, "publish a port: [IP:]HOSTPORT:PORT[/udp]")
	f.StringArrayVarP(&o.Env, "env", "e", nil, "environment: KEY=VALUE, or KEY with its value here")
	f.StringArrayVar(&o.EnvFile, "env-file", nil, "file with lines KEY=VALUE")
	f.StringArrayVarP(&o.Volume, "volume", "v", nil, "mount /HOSTPATH:/PATH[:ro] or NAME:/PATH[:ro]")
	f.StringVar(&o.Network, "network", "bridge", "bridge, host or none")
	f.StringVar(&entrypoint, "entrypoint", "", "command instead of the image's entrypoint")
	f.StringVarP(&o.Memory, "memory", "m", "", "limit of memory: 512m, 2g")
	f.StringVar(&o.CPUs, "cpus", "", "limit of processors: 1.5")
	f.StringVar(&o.Restart, "restart", "no", "restart policy: no, on-failure[:MAX], always or unless-stopped")
	f.StringVarP(&o.User, "user", "u", "", "user: UID[:GID]")
	f.StringVarP(&o.Workdir, "workdir", "w", "", "working directory")
	f.StringVarP(&o.Hostname, "hostname", "h", "", "host name; the container's name if empty")
	f.StringVar(&o.Node, "node", "", "host to run on; the cluster chooses if empty")
	f.StringArrayVarP(&o.Label, "label", "l", nil, "label: KEY=VALUE")
	f.BoolVar(&o.ReadOnly, "read-only", false, "let it write to volumes only")
	f.BoolVar(&o.Privileged, "privileged", false, "take all fences away")
	f.StringSliceVar(&o.CapAdd, "cap-add", nil, "capability to add, or ALL")
	f.StringSliceVar(&o.CapDrop, "cap-drop", nil, "capability to drop, or ALL")
	f.StringVar(&o.Pull, "pull", "missing", "when to pull the image: missing, always or never")
	f.BoolVar(&o.Init, "init", false, "not supported")
	_ = f.MarkHidden("init")
	return containerVerb(cmd, func(ctx context.Context, c *containers.Cluster, args []string) error {
		if f.Changed("entrypoint") {
			o.Entrypoint = &entrypoint
		}
		o.Image, o.Command = args[0], args[1:]
		return ended(c, func() (int, error) { return c.Run(ctx, o) })
	})
}

// ended ends the program with a container's code, which may come with an error.
func ended(c *containers.Cluster, run func() (int, error)) error {
	code, err := run()
	if err != nil {
		fmt.Fprintln(c.Err, "lighter:", err)
	}
	if code == 0 {
		return nil
	}
	return exitCode(code)
}
