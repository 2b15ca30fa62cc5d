package build

import (
	"bytes"
	"context"
	"strings"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerfile/shell"
	"github.com/moby/buildkit/frontend/dockerui"
	gateway "github.com/moby/buildkit/frontend/gateway/client"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// hub is Docker Hub's host in the names of images.
const hub = "docker.io"

// writtenHubNames reads the Dockerfile of a build for hubNames. What cannot be read
// the frontend reports: it is about to read the same.
func writtenHubNames(ctx context.Context, c gateway.Client) map[string]bool {
	build, err := dockerui.NewClient(c)
	if err != nil {
		return nil
	}
	file, err := build.ReadEntrypoint(ctx, "Dockerfile")
	if err != nil {
		return nil
	}
	return hubNames(file.Data, c.BuildOpts().Opts)
}

// hubNames are the full names of the images that a Dockerfile takes from Docker Hub
// although another registry is the default: those with its host written in front. The
// frontend asks for "docker.io/library/base:latest" also where "base" is written.
func hubNames(dockerfile []byte, opts map[string]string) map[string]bool {
	names := map[string]bool{}
	for _, written := range writtenImages(dockerfile, opts) {
		host, _, _ := strings.Cut(written, "/")
		if host != hub && host != "index."+hub {
			continue
		}
		if named, err := reference.ParseNormalizedNamed(written); err == nil {
			names[reference.TagNameOnly(named).String()] = true
		}
	}
	return names
}

// writtenImages are what FROM, COPY --from and RUN --mount=from name: images and
// stages, with their variables expanded.
func writtenImages(dockerfile []byte, opts map[string]string) []string {
	file, err := parser.Parse(bytes.NewReader(dockerfile))
	if err != nil {
		return nil
	}
	stages, args, err := instructions.Parse(file.AST, nil)
	if err != nil {
		return nil
	}
	lex := shell.NewLex(file.EscapeToken)
	env := fromArgs(lex, args, opts)
	var names []string
	for _, stage := range stages {
		if name, _, err := lex.ProcessWord(stage.BaseName, env); err == nil {
			names = append(names, name)
		}
		for _, command := range stage.Commands {
			switch c := command.(type) {
			case *instructions.CopyCommand:
				names = append(names, c.From)
			case *instructions.RunCommand:
				for _, mount := range instructions.GetMounts(c) {
					names = append(names, mount.From)
				}
			}
		}
	}
	return names
}

// fromArgs are the variables that FROM can use: those of the platforms, and what
// stands before the first stage, as the build's arguments have it.
func fromArgs(lex *shell.Lex, args []instructions.ArgCommand, opts map[string]string) shell.EnvGetter {
	here := platforms.DefaultSpec()
	target := here
	if p, err := platforms.Parse(opts["platform"]); err == nil {
		target = p
	}
	env := append(platformArgs("BUILD", here), platformArgs("TARGET", target)...)
	for _, command := range args {
		for _, arg := range command.Args {
			value, given := opts[argPrefix+arg.Key]
			if !given && arg.Value != nil {
				value, _, _ = lex.ProcessWord(*arg.Value, shell.EnvsFromSlice(env))
				given = true
			}
			if given {
				env = append(env, arg.Key+"="+value)
			}
		}
	}
	return shell.EnvsFromSlice(env)
}

func platformArgs(prefix string, p ocispec.Platform) []string {
	return []string{prefix + "PLATFORM=" + platforms.Format(p), prefix + "OS=" + p.OS, prefix + "ARCH=" + p.Architecture, prefix + "VARIANT=" + p.Variant}
}
