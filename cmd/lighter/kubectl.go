package main

import (
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/rest"
	kubectlcmd "k8s.io/kubectl/pkg/cmd"
	"k8s.io/kubectl/pkg/cmd/plugin"
	cmdutil "k8s.io/kubectl/pkg/cmd/util"
)

// kubectlVerbs are the commands of kubectl that are commands of lighter too.
// apply and version are not here: lighter has its own. wait and diff are shared
// with Docker's, see wait_diff.go.
var kubectlVerbs = []struct{ name, short string }{
	{"get", "Show objects"},
	{"describe", "Show one object in detail, with its events"},
	{"explain", "Document a kind or a field"},
	{"events", "Show events"},
	{"logs", "Print a container's output"},
	{"exec", "Run a command in a container"},
	{"attach", "Attach to a running container"},
	{"cp", "Copy files to and from containers"},
	{"port-forward", "Forward local ports to a pod"},
	{"create", "Create an object from a file or from flags"},
	{"delete", "Delete objects"},
	{"edit", "Edit an object"},
	{"patch", "Change fields of an object"},
	{"replace", "Replace an object"},
	{"label", "Set labels"},
	{"annotate", "Set annotations"},
	{"set", "Set an image, environment, resources and the like"},
	{"scale", "Set the number of replicas"},
	{"rollout", "Show, pause, undo a rollout"},
	{"expose", "Make a Service for pods"},
	{"cordon", "Keep new pods off a node"},
	{"uncordon", "Let new pods on a node again"},
	{"drain", "Evict a node's pods"},
	{"taint", "Set taints of a node"},
	{"auth", "Ask what one may do"},
	{"config", "Edit kubeconfig files"},
	{"cluster-info", "Show where the API is"},
	{"api-resources", "List the kinds"},
	{"api-versions", "List the API groups and versions"},
}

// newKubectlVerbs makes a stub for each verb, for the help and for shell
// completion; what runs is kubectl's own command tree, which parses the flags.
func newKubectlVerbs() []*cobra.Command {
	passOn := func(name, short string, skip int) *cobra.Command {
		return &cobra.Command{
			Use: name, Short: short, DisableFlagParsing: true,
			RunE: func(*cobra.Command, []string) error { return exitCode(runKubectl("lighter", os.Args[1+skip:])) },
		}
	}
	all := []*cobra.Command{passOn("kubectl", "All of kubectl", 1)}
	for _, verb := range kubectlVerbs {
		stub := passOn(verb.name, verb.short, 0)
		if slices.Contains(podVerbs, verb.name) {
			stub.RunE = func(*cobra.Command, []string) error { return exitCode(runKubectl("lighter", podLine(os.Args[1:]))) }
		}
		all = append(all, stub)
	}
	return all
}

// forKubectl tells command lines that kubectl's tree has to parse itself: those
// that begin with one of its global flags (lighter -n shop get pods), and
// completion of its verbs.
func forKubectl(args []string) bool {
	if len(args) == 0 {
		return false
	}
	switch first := args[0]; {
	case first == "-h" || first == "--help" || first == "--version":
		return false
	case strings.HasPrefix(first, "-"):
		return true
	case first == cobra.ShellCompRequestCmd || first == cobra.ShellCompNoDescRequestCmd:
		return len(args) > 2 && isKubectlVerb(args[1])
	}
	return false
}

func isKubectlVerb(name string) bool {
	for _, verb := range kubectlVerbs {
		if verb.name == name {
			return true
		}
	}
	return false
}

// runKubectl runs kubectl's command tree under the given name and returns the
// exit code. Its commands end the process themselves when they fail, and count on
// signals to end it too.
func runKubectl(name string, args []string) int {
	signal.Reset(os.Interrupt, syscall.SIGTERM) // run has caught them
	if err := newKubectlRoot(name, args, configFlags()).Execute(); err != nil {
		cmdutil.CheckErr(err)
		return 1
	}
	return 0
}

func newKubectlRoot(name string, args []string, connection *genericclioptions.ConfigFlags) *cobra.Command {
	streams := genericiooptions.IOStreams{In: os.Stdin, Out: os.Stdout, ErrOut: os.Stderr}
	root := kubectlcmd.NewDefaultKubectlCommandWithArgs(kubectlcmd.KubectlOptions{
		PluginHandler: kubectlcmd.NewDefaultPluginHandler(plugin.ValidPluginFilenamePrefixes),
		Arguments:     append([]string{name}, args...),
		ConfigFlags:   connection.WithWarningPrinter(streams),
		IOStreams:     streams,
	})
	root.Use = name
	root.SilenceErrors, root.SilenceUsage = true, true
	root.SetArgs(args)
	return root
}

// configFlags are kubectl's connection flags with its own limits for discovery.
func configFlags() *genericclioptions.ConfigFlags {
	return genericclioptions.NewConfigFlags(true).WithDeprecatedPasswordFlag().WithDiscoveryBurst(300).WithDiscoveryQPS(50)
}

// target is where the connection flags lead to.
func target(flags *genericclioptions.ConfigFlags) (config *rest.Config, namespace string, err error) {
	if config, err = flags.ToRESTConfig(); err != nil {
		return nil, "", err
	}
	namespace, _, err = flags.ToRawKubeConfigLoader().Namespace()
	return config, namespace, err
}
