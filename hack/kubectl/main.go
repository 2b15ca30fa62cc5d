// Command kubectl is the kubectl of the Kubernetes release that Lighter serves,
// for tests and for people who have none:
//
//	go build -o bin/kubectl ./hack/kubectl
package main

import (
	"os"

	"k8s.io/component-base/cli"
	kubectlcmd "k8s.io/kubectl/pkg/cmd"
	cmdutil "k8s.io/kubectl/pkg/cmd/util"

	"lighter.dev/lighter/cmd/lighter/release"
)

func main() {
	cmdutil.CheckErr(release.Stamp())
	if err := cli.RunNoErrOutput(kubectlcmd.NewDefaultKubectlCommand()); err != nil {
		cmdutil.CheckErr(err) // ends the process with the command's exit code
		os.Exit(1)
	}
}
