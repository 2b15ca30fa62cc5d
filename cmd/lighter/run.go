package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"lighter.dev/lighter/cmd/lighter/containers"
)

func newRunCommand() *cobra.Command {
	o := containers.Options{}
	cmd := &cobra.Command{
		Use: "run [flags] IMAGE [COMMAND [ARG...]]", Short: "Run a container", Args: cobra.MinimumNArgs(1),
		Long: `Runs a container as "docker run" does: a pod that keeps its host, address and
files when it is stopped. Without -d the command stays with it, passes signals on
and ends with the container's code; ctrl-p ctrl-q leaves a terminal.

All containers are on the cluster's network and reach one another on every host;
--network bridge and --network overlay are names for it. -p PORT publishes a port
of the container at one of its host that is free: "lighter port" shows it.

A host path in -v is one of the container's host. A named volume is the folder
/var/lib/lighter/named-volumes/NAMESPACE/NAME of the host on which it was used first;
all that use it run there. ConfigMap lighter-volumes says where each lies.`,
		Example: "  lighter run -d --name web -p 8080:80 nginx\n  lighter run --rm -it busybox sh\n  lighter run --rm busybox echo hello",
	}
	f := cmd.Flags()
	f.SetInterspersed(false) // what follows the image is the container's
	f.Bool("help", false, "help for run")
	entrypoint, stopTimeout := runFlags(f, &o)
	networkFlags(f, &o.Network)
	securityFlags(f, &o.Security)
	storageFlags(f, &o.Storage)
	healthFlags(f, &o.Health)
	refuseFlags(f)
	return containerVerb(cmd, func(ctx context.Context, c *containers.Cluster, args []string) error {
		if f.Changed("entrypoint") {
			o.Entrypoint = entrypoint
		}
		if f.Changed("stop-timeout") {
			o.StopTimeout = stopTimeout
		}
		o.Image, o.Command = args[0], args[1:]
		return ended(c, func() (int, error) {
			if err := refused(f); err != nil {
				return exitEngine, err
			}
			return c.Run(ctx, o)
		})
	})
}

// exitEngine is Docker's code for what is not the container's own fault.
const exitEngine = 125

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
