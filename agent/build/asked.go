package build

import (
	"fmt"
	"strings"

	controlapi "github.com/moby/buildkit/api/services/control"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	argPrefix       = "build-arg:"
	labelPrefix     = "label:"
	resolveModeAttr = "image-resolve-mode"
	// dockerfileKeyAttr names the client's folder that has the Dockerfile.
	dockerfileKeyAttr = "dockerfilekey"
)

// refused is an error about a client's request. A person reads it: it says what
// was asked for, and what to do instead.
func refused(format string, args ...any) error {
	return status.Error(codes.InvalidArgument, "the builder of this cluster does not take "+fmt.Sprintf(format, args...))
}

// refusal tells what in a request nobody may ask for, whose Image it may be. A
// graph of one's own (LLB) could name other namespaces' images and caches; an
// entitlement would reach the host; a source policy or another frontend would
// build something else than the Image says.
func refusal(asked *controlapi.SolveRequest) error {
	switch {
	case asked.Frontend != frontendName && asked.Frontend != "":
		return refused("the frontend %s: want %s", asked.Frontend, frontendName)
	case asked.Definition != nil && len(asked.Definition.Def) > 0, len(asked.FrontendInputs) > 0:
		return refused("a build graph (LLB): send a Dockerfile")
	case len(asked.Entitlements) > 0:
		return refused("the entitlement %s: RUN steps have neither the host's network nor its privileges", strings.Join(asked.Entitlements, ", "))
	case asked.SourcePolicy != nil, asked.SourcePolicySession != "":
		return refused("a source policy")
	case asked.ProxyNetwork:
		return refused("a proxy network")
	}
	if c := asked.Cache; c != nil {
		if len(c.Exports)+len(c.Imports)+len(c.ImportRefsDeprecated) > 0 || c.ExportRefDeprecated != "" {
			return refused("caches to import or export: it keeps one of its own")
		}
	}
	return nil
}

// clientAttrs adds to attrs, which the Image decides, what the client may
// choose for a build: how it is done, never what.
func clientAttrs(attrs, asked map[string]string) error {
	for key, value := range asked {
		said, isSaid := attrs[key]
		switch {
		case isSaid && said == value && key != namespaceAttr && key != cacheNamespaceAttr && key != pullAttr:
			// It repeats what the Image says.
		case key == "target" && value == said:
		case key == "filename":
			// The file comes from the client's own folder, whatever it is called there.
			attrs[key] = value
		case howAttr(key, value):
			attrs[key] = value
		case key == resolveModeAttr:
			if err := resolveMode(attrs, value); err != nil {
				return err
			}
		case ignored(key), ownDockerfile(attrs, key, value):
		case key == "target":
			return refused("the target %q: the Image's spec.target says %q, change it there", value, attrs[key])
		case strings.HasPrefix(key, argPrefix):
			return refused("the build argument %s: write it to the Image's spec.args", strings.TrimPrefix(key, argPrefix))
		default:
			return refused("the option %s", key)
		}
	}
	return nil
}

// howAttr tells attributes that say how to build.
func howAttr(key, value string) bool {
	switch key {
	case "no-cache", "platform", "add-hosts":
		return true
	case "force-network-mode":
		return value == "none" || value == "sandbox" || value == ""
	}
	return strings.HasPrefix(key, labelPrefix)
}

// resolveMode is what --pull means: ask the registry although the base image is
// here. The frontend itself stays with "local", as it would look for the cluster's
// own images in a registry too: see nearbyImages.
func resolveMode(attrs map[string]string, mode string) error {
	switch mode {
	case "pull":
		attrs[pullAttr] = ""
	case "local", "default", "":
	default:
		return refused("%s=%s: want local or pull", resolveModeAttr, mode)
	}
	return nil
}

// ignored are attributes that docker buildx sends unasked and that do not change
// what is in the image: where the source comes from (vcs:…), attestations.
func ignored(key string) bool {
	return strings.HasPrefix(key, "vcs:") || strings.HasPrefix(key, "attest:") || key == "source" || key == "cmdline" || key == "frontend.caps"
}

// ownDockerfile tells that the client read its Dockerfile from somewhere else. It
// is in the client's session under the name by which it is asked for anyway, unless
// the Image has a repository with one.
func ownDockerfile(attrs map[string]string, key, value string) bool {
	return key == dockerfileKeyAttr && value == "dockerfile" && attrs["context"] == ""
}
