// Command lighter is the whole of Lighter in one binary: the server, the agent,
// the client with kubectl's verbs, and clusters on one machine.
//
// One file per subcommand; root.go lists them. This is the only place that
// imports controller, agent and overlay together and fits them to one another.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"lighter.dev/lighter/cmd/lighter/release"
)

func main() {
	if err := release.Stamp(); err != nil {
		fmt.Fprintln(os.Stderr, "lighter:", err)
		os.Exit(1)
	}
	defaultKubeconfig()
	// Under the name kubectl (a link will do) we are kubectl.
	if filepath.Base(os.Args[0]) == "kubectl" {
		os.Exit(runKubectl("kubectl", os.Args[1:]))
	}
	os.Exit(run(os.Args[1:]))
}
