// Package release tells the Kubernetes and BuildKit code in this binary which
// releases they are of, so that a plain "go build" gives a server, a kubectl and a
// builder that state and compare versions. Upstream stamps its own programs by
// linker flags.
package release

import (
	"runtime/debug"
	"strings"
	_ "unsafe" // go:linkname

	buildkit "github.com/moby/buildkit/version"
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

// unstamped is how BuildKit's version ends without linker flags.
const unstamped = "+unknown"

// Stamp sets the versions unless linker flags have. Call it first in main.
func Stamp() error {
	if v := module("github.com/moby/buildkit"); v != "" && strings.HasSuffix(buildkit.Version, unstamped) {
		buildkit.Version = v
	}
	// A binary with k8s.io/client-go v0.X.Y is of Kubernetes v1.X.Y.
	rest, found := strings.CutPrefix(module("k8s.io/client-go"), "v0.")
	if !found || gitMajor != "" {
		return nil
	}
	gitVersion = "v1." + rest
	gitMajor = "1"
	gitMinor, _, _ = strings.Cut(rest, ".")
	return version.SetDynamicVersion(gitVersion)
}

// module is the version of a module that this binary was built with, or "".
func module(path string) string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, m := range info.Deps {
		if m.Path == path {
			return m.Version
		}
	}
	return ""
}
