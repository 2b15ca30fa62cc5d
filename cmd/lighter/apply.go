package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericclioptions"

	"lighter.dev/lighter/agent/build/buildclient"
	"lighter.dev/lighter/cmd/lighter/apply"
)

func newApplyCommand() *cobra.Command {
	flags := configFlags()
	options := apply.Options{}
	var progress string
	var noCache bool
	var dryRun string
	cmd := &cobra.Command{
		Use: "apply -f FILE|FOLDER|-", Short: "Apply manifests: build images, create and change objects, watch the rollout", Args: cobra.NoArgs,
		Long: `Applies manifests by server-side apply, with unknown fields being errors. All of
them are checked before the first one changes anything. Images are built from the
folders they name, or by the cluster alone if it has all it needs (inline, git,
configMap). Then everything else is applied, and the rollout is watched.`,
		Example: "  lighter apply -f manifests/guestbook\n  cat pod.yaml | lighter apply -f -",
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch dryRun {
			case "none":
			case "server":
				options.DryRun = true
			default:
				return usageError{fmt.Errorf("--dry-run=%s: must be none or server", dryRun)}
			}
			if len(options.Files.Filenames) == 0 && options.Files.Kustomize == "" {
				return usageError{errors.New("say what to apply: -f FILE, -f FOLDER, -f - or -k FOLDER")}
			}
			options.Out, options.Err = cmd.OutOrStdout(), cmd.ErrOrStderr()
			options.Build = imageBuilder(flags, buildclient.Progress(progress), noCache)
			return apply.Run(cmd.Context(), flags, options)
		},
	}
	flags.AddFlags(cmd.Flags())
	f := cmd.Flags()
	f.StringSliceVarP(&options.Files.Filenames, "filename", "f", nil, "file, folder or URL with manifests; - for standard input")
	f.StringVarP(&options.Files.Kustomize, "kustomize", "k", "", "folder with a kustomization")
	f.BoolVarP(&options.Files.Recursive, "recursive", "R", false, "look into folders below as well")
	f.StringVarP(&options.Selector, "selector", "l", "", "only objects with these labels")
	f.StringVar(&dryRun, "dry-run", "none", "server: check everything, change nothing")
	f.BoolVar(&options.ForceConflicts, "force-conflicts", false, "take over fields that others have set")
	f.BoolVar(&options.Wait, "wait", true, "watch until Deployments are rolled out")
	f.DurationVar(&options.Timeout, "timeout", 5*time.Minute, "how long to watch")
	f.StringVar(&progress, "progress", string(buildclient.Auto), "how builds are shown: auto, plain or quiet")
	f.BoolVar(&noCache, "no-cache", false, "build every step anew")
	return cmd
}

// imageBuilder builds through the cluster that the flags lead to.
func imageBuilder(flags *genericclioptions.ConfigFlags, progress buildclient.Progress, noCache bool) func(context.Context, apply.ImageBuild) (string, error) {
	return func(ctx context.Context, build apply.ImageBuild) (string, error) {
		config, err := flags.ToRESTConfig()
		if err != nil {
			return "", err
		}
		result, err := buildclient.Build(ctx, buildclient.Config{
			REST: config, Namespace: build.Namespace, Name: build.Name,
			ContextDir: build.Dir, Dockerfile: build.Dockerfile, Files: build.Files,
			NoCache: noCache, Progress: progress, Out: os.Stderr,
		})
		return result.Digest.String(), err
	}
}
