package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/client-go/rest"

	"lighter.dev/lighter/agent/build/buildclient"
	"lighter.dev/lighter/api/client/clientset"
	"lighter.dev/lighter/cmd/lighter/build"
	"lighter.dev/lighter/cmd/lighter/images"
)

// buildFlags are the flags of "lighter build" that its parts read later.
type buildFlags struct {
	build.Options
	build   buildclient.Config
	file    string
	labels  []string
	outputs []string
	push    bool
	mode    string
}

func newBuildCommand() *cobra.Command {
	config := configFlags()
	flags := &buildFlags{}
	cmd := &cobra.Command{
		Use: "build [-t NAME[:TAG]] FOLDER|URL|-", Short: "Build an image on one of the cluster's hosts, as an Image of the namespace", Args: cobra.ExactArgs(1),
		Long: `Builds a Dockerfile on one of the cluster's hosts, and shows its progress. Files,
secrets, SSH agents and registry credentials are this machine's; the host asks for
what it needs of them. The result is an Image object, which any pod of the
namespace can run by its names.

The context is a folder, the URL of a Git repository (https://HOST/PATH.git#REF:FOLDER),
the URL of an archive or a Dockerfile, or - for one of these on standard input.`,
		Example: `  lighter build -t shop .
  lighter build -t shop:v2 -f docker/Prod.Dockerfile --build-arg VERSION=2 --secret id=npm,src=$HOME/.npmrc .
  lighter build -t shop https://example.com/team/shop.git#main
  lighter build --output type=local,dest=out --target binaries .
  tar cz . | lighter build -t shop -`,
		RunE: func(cmd *cobra.Command, args []string) error { return flags.run(cmd, config, args[0]) },
	}
	config.AddFlags(cmd.Flags())
	f := cmd.Flags()
	f.StringArrayVarP(&flags.Tags, "tag", "t", nil, "name of the image; several are possible")
	f.StringVarP(&flags.file, "file", "f", "", "the Dockerfile; - for standard input (default: Dockerfile in the context)")
	f.StringVar(&flags.Target, "target", "", "stage to build (default: the last one)")
	f.StringArrayVar(&flags.Args, "build-arg", nil, "value of an ARG: NAME=VALUE, or NAME for that in the environment")
	f.StringArrayVar(&flags.build.Secrets, "secret", nil, "for RUN --mount=type=secret: id=ID,src=FILE or id=ID,env=NAME")
	f.StringArrayVar(&flags.build.SSH, "ssh", nil, "for RUN --mount=type=ssh: default, or ID=SOCKET or ID=KEYFILE")
	f.StringVar(&flags.build.Platform, "platform", "", "platform to build for (default: the host's)")
	f.StringArrayVar(&flags.labels, "label", nil, "label of the image, NAME=VALUE")
	f.BoolVar(&flags.build.NoCache, "no-cache", false, "build every step anew")
	f.BoolVar(&flags.build.Pull, "pull", false, "ask registries for newer base images")
	f.StringArrayVarP(&flags.outputs, "output", "o", nil, "where else the result goes: FOLDER, - or type=local|tar|oci|docker,dest=DEST")
	f.BoolVar(&flags.push, "push", false, "push the image to the registries in its names")
	f.StringVar(&flags.mode, "progress", string(buildclient.Auto), "how the build is shown: auto, plain or quiet")
	f.BoolVarP(&flags.Quiet, "quiet", "q", false, "print the digest alone")
	f.StringVar(&flags.build.Node, "node", "", "host that is to build (default: the cluster chooses)")
	f.StringVar(&flags.DigestFile, "iidfile", "", "file that gets the digest")
	return cmd
}

func (f *buildFlags) run(cmd *cobra.Command, config *genericclioptions.ConfigFlags, argument string) error {
	if err := f.parse(cmd); err != nil {
		return usageError{err}
	}
	api, namespace, err := target(config)
	if err != nil {
		return err
	}
	client, err := clientset.NewForConfig(api)
	if err != nil {
		return err
	}
	source, err := build.Open(cmd.Context(), argument, f.file, cmd.InOrStdin())
	if err != nil {
		return err
	}
	f.build.REST, f.build.Namespace = api, namespace
	f.Images, f.Build = client.LighterV1alpha1().Images(namespace), f.buildImage
	if f.push {
		if f.Push, err = pusher(api, namespace, cmd); err != nil {
			return err
		}
	}
	return errors.Join(build.Run(cmd.Context(), source, f.Options), source.Close())
}

// pusher pushes a name as "lighter push" does.
func pusher(config *rest.Config, namespace string, cmd *cobra.Command) (func(context.Context, string) error, error) {
	logins, err := images.LoadLogins()
	if err != nil {
		return nil, err
	}
	cluster, err := images.Connect(config, namespace)
	if err != nil {
		return nil, err
	}
	cluster.Out, cluster.Err = cmd.ErrOrStderr(), cmd.ErrOrStderr()
	return func(ctx context.Context, tag string) error { return cluster.Push(ctx, tag, false, logins.For) }, nil
}

// parse reads what has a syntax of its own.
func (f *buildFlags) parse(cmd *cobra.Command) error {
	f.Out, f.build.Out, f.build.Stdout = cmd.OutOrStdout(), cmd.ErrOrStderr(), cmd.OutOrStdout()
	f.build.Progress = buildclient.Progress(f.mode)
	if f.Quiet {
		f.build.Progress = buildclient.Quiet
	}
	f.build.Labels = map[string]string{}
	for _, label := range f.labels {
		key, value, _ := strings.Cut(label, "=")
		if key == "" {
			return fmt.Errorf("--label %s: want NAME=VALUE", label)
		}
		f.build.Labels[key] = value
	}
	for _, text := range f.outputs {
		output, err := buildclient.ParseOutput(text)
		if err != nil {
			return fmt.Errorf("--output: %w", err)
		}
		f.build.Outputs = append(f.build.Outputs, output)
		if output.Dest == "" || output.Dest == "-" {
			f.Out = cmd.ErrOrStderr() // standard output is the archive's
		}
	}
	f.Keep = len(f.outputs) == 0
	if f.push && len(f.Tags) == 0 {
		return errors.New("--push needs a name: -t REGISTRY/NAME")
	}
	return nil
}

// buildImage builds the Image of that name, a second time without outputs.
func (f *buildFlags) buildImage(ctx context.Context, image string, c *build.Context, again bool) (string, error) {
	config := f.build
	config.Name = image
	config.ContextDir, config.DockerfileDir, config.Dockerfile = c.Dir, c.DockerfileDir, c.File
	if c.File == "" {
		config.Dockerfile = c.Dockerfile
	}
	if again {
		config.NoCache, config.Pull, config.Outputs, config.Progress = false, false, nil, buildclient.Quiet
	}
	result, err := buildclient.Build(ctx, config)
	return result.Digest.String(), err
}
