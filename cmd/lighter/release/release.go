// Package release tells the Kubernetes code in this binary which release it is
// of, so that a plain "go build" gives a server and a kubectl that state and
// compare versions. Kubernetes stamps its own programs by linker flags.
package release

import (
	"runtime/debug"
	"strings"
	_ "unsafe" // go:linkname

	"k8s.io/component-base/version"
)

// Upstream's variables, which are made to be set from outside.
var (
	//go:linkname gitVersion k8s.io/component-base/version.gitVersion
	gitVersion string
	//go:linkname gitMajor k8s.io/component-base/version.gitMajor
	gitMajor string
	//go:linkname gitMinor k8s.io/component-base/version.gitMinor
	gitMinor string
)

// Stamp sets the version unless linker flags have. Call it first in main.
func Stamp() error {
	release := kubernetes()
	if release == "" || gitMajor != "" {
		return nil
	}
	parts := strings.SplitN(strings.TrimPrefix(release, "v"), ".", 3)
	gitVersion, gitMajor, gitMinor = release, parts[0], parts[1]
	return version.SetDynamicVersion(release)
}

// kubernetes is v1.X.Y for a binary built with k8s.io/client-go v0.X.Y, or "".
func kubernetes() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, module := range info.Deps {
		if rest, found := strings.CutPrefix(module.Version, "v0."); found && module.Path == "k8s.io/client-go" {
			return "v1." + rest
		}
	}
	return ""
}
