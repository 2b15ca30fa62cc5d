package image

import (
	"cmp"
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerfile/shell"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"lighter.dev/lighter/api/agentapi"
)

// Edit is what a command changes about the image that it makes.
type Edit struct{ asked agentapi.Edits }

// ParseEdit checks what a client asks for. Its changes are instructions of a
// Dockerfile that concern the configuration and nothing else, as "docker commit
// --change" takes them. It is pure.
func ParseEdit(asked agentapi.Edits) (Edit, error) {
	edit := Edit{asked}
	return edit, edit.apply(&ocispec.Image{})
}

func (e Edit) empty() bool {
	return e.asked.Author == "" && e.asked.Message == "" && len(e.asked.Changes) == 0
}

// apply edits an image, of which the last step of its history is the new one.
func (e Edit) apply(image *ocispec.Image) error {
	image.Author = cmp.Or(e.asked.Author, image.Author)
	if n := len(image.History); n > 0 {
		last := &image.History[n-1]
		last.Author, last.Comment = cmp.Or(e.asked.Author, last.Author), cmp.Or(e.asked.Message, last.Comment)
	}
	for _, line := range e.asked.Changes {
		change, err := parseChange(line)
		if err == nil {
			err = applyChange(change, &image.Config)
		}
		if err != nil {
			return classify(errdefs.ErrInvalidArgument, "change %q: %v", line, err)
		}
	}
	return nil
}

func parseChange(line string) (any, error) {
	tree, err := parser.Parse(strings.NewReader(line))
	if err != nil {
		return nil, err
	}
	if len(tree.AST.Children) != 1 {
		return nil, fmt.Errorf("want one instruction, not %d", len(tree.AST.Children))
	}
	return instructions.ParseInstruction(tree.AST.Children[0])
}

// applyChange carries out one instruction. Its variables are those that the image
// sets so far, as in a Dockerfile.
func applyChange(change any, config *ocispec.ImageConfig) error {
	if expands, ok := change.(instructions.SupportsSingleWordExpansion); ok {
		lex, env := shell.NewLex('\\'), shell.EnvsFromSlice(config.Env)
		err := expands.Expand(func(word string) (string, error) {
			expanded, _, err := lex.ProcessWord(word, env)
			return expanded, err
		})
		if err != nil {
			return err
		}
	}
	switch c := change.(type) {
	case *instructions.CmdCommand:
		config.Cmd = words(c.ShellDependantCmdLine)
	case *instructions.EntrypointCommand:
		config.Entrypoint = words(c.ShellDependantCmdLine)
	case *instructions.EnvCommand:
		for _, pair := range c.Env {
			config.Env = mergeEnv(config.Env, []string{pair.Key + "=" + pair.Value})
		}
	case *instructions.LabelCommand:
		if config.Labels == nil {
			config.Labels = map[string]string{}
		}
		for _, pair := range c.Labels {
			config.Labels[pair.Key] = pair.Value
		}
	case *instructions.ExposeCommand:
		for _, port := range c.Ports {
			if !strings.Contains(port, "/") {
				port += "/tcp"
			}
			config.ExposedPorts = addKeys(config.ExposedPorts, strings.ToLower(port))
		}
	case *instructions.VolumeCommand:
		config.Volumes = addKeys(config.Volumes, c.Volumes...)
	case *instructions.UserCommand:
		config.User = c.User
	case *instructions.StopSignalCommand:
		config.StopSignal = c.Signal
	case *instructions.WorkdirCommand:
		config.WorkingDir = workdir(config.WorkingDir, c.Path)
	default:
		return errors.New("it changes more than a configuration: want CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME or WORKDIR")
	}
	return nil
}

// words is a command as it is run: by a shell unless it is a JSON array.
func words(line instructions.ShellDependantCmdLine) []string {
	if line.PrependShell {
		return []string{"/bin/sh", "-c", strings.Join(line.CmdLine, " ")}
	}
	return line.CmdLine
}

func addKeys(set map[string]struct{}, keys ...string) map[string]struct{} {
	if set == nil {
		set = map[string]struct{}{}
	}
	for _, key := range keys {
		set[key] = struct{}{}
	}
	return set
}

// workdir is relative to the one before, as in a Dockerfile.
func workdir(before, to string) string {
	if path.IsAbs(to) {
		return path.Clean(to)
	}
	return path.Join("/", before, to)
}
