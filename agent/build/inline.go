package build

import (
	"context"
	"fmt"

	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/frontend/dockerui"
	"github.com/moby/buildkit/solver/pb"

	"lighter.dev/lighter/api/v1alpha1"
)

// inlineInputs is the context of an Image that is a Dockerfile and nothing else,
// in the form of graphs (LLB) that the frontend takes instead of a client's
// folder. So whoever asks for the build, it is the Dockerfile in the object.
func inlineInputs(img *v1alpha1.Image) (map[string]*pb.Definition, error) {
	const mode = 0o644
	file := llb.Scratch().File(llb.Mkfile(v1alpha1.DefaultDockerfile, mode, []byte(img.Spec.Source.Inline)), llb.WithCustomName("spec.source.inline"))
	inputs := map[string]*pb.Definition{}
	for name, state := range map[string]llb.State{dockerui.DefaultLocalNameDockerfile: file, dockerui.DefaultLocalNameContext: file} {
		definition, err := state.Marshal(context.Background()) // nothing is asked of anybody
		if err != nil {
			return nil, fmt.Errorf("spec.source.inline: %w", err)
		}
		inputs[name] = definition.ToPB()
	}
	return inputs, nil
}
