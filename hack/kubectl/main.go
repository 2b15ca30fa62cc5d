// Command kubectl is the kubectl of the Kubernetes release that Lighter serves,
// for tests and for people who have none:
//
//	go build -o bin/kubectl ./hack/kubectl
package main

import (
	"os"
	"runtime/debug"
	"strings"
	_ "unsafe" // go:linkname

	"k8s.io/component-base/cli"
	"k8s.io/component-base/version"
	kubectlcmd "k8s.io/kubectl/pkg/cmd"
	cmdutil "k8s.io/kubectl/pkg/cmd/util"
)

// Kubernetes stamps its programs by linker flags, and without them kubectl can
// compare its version with no server's. A plain go build is to give a whole
// kubectl too, so main fills the same variables from the module's version.
var (
	//go:linkname gitVersion k8s.io/component-base/version.gitVersion
	gitVersion string
	//go:linkname gitMajor k8s.io/component-base/version.gitMajor
	gitMajor string
	//go:linkname gitMinor k8s.io/component-base/version.gitMinor
	gitMinor string
)

func main() {
	if release := kubernetesRelease(); release != "" && gitMajor == "" {
		parts := strings.SplitN(strings.TrimPrefix(release, "v"), ".", 3)
		gitVersion, gitMajor, gitMinor = release, parts[0], parts[1]
		cmdutil.CheckErr(version.SetDynamicVersion(release))
	}
	if err := cli.RunNoErrOutput(kubectlcmd.NewDefaultKubectlCommand()); err != nil {
		cmdutil.CheckErr(err) // ends the process with the command's exit code
		os.Exit(1)
	}
}

// kubernetesRelease is v1.X.Y for a binary built with k8s.io/kubectl v0.X.Y, or "".
func kubernetesRelease() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, module := range info.Deps {
		if rest, found := strings.CutPrefix(module.Version, "v0."); found && module.Path == "k8s.io/kubectl" {
			return "v1." + rest
		}
	}
	return ""
}
