package build

import (
	"fmt"
	"strings"

	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/solver/pb"

	"lighter.dev/lighter/agent/image"
	"lighter.dev/lighter/api/v1alpha1"
)

// buildNames are the full names of an Image's tags.
func buildNames(img *v1alpha1.Image) ([]string, error) {
	spec := img.DeepCopy()
	v1alpha1.SetImageDefaults(spec)
	var out []string
	for _, tag := range spec.Spec.Tags {
		name, err := v1alpha1.NormalizeTag(tag)
		if err != nil {
			return nil, fmt.Errorf("spec.tags: %q: %w", tag, err)
		}
		out = append(out, name)
	}
	return out, nil
}

// namespaceAttr tells the frontend for which namespace it builds. A client
// cannot set it: attrs lets it pass as little as any other that it does not
// know, and the args of an Image become attributes of another prefix.
const namespaceAttr = "lighter-namespace"

// pullAttr, if there is one, makes the registry say what a base image means now.
const pullAttr = "lighter-pull"

// cacheNamespaceAttr keeps the cache mounts (RUN --mount=type=cache) of
// namespaces apart: what one writes there, another's build would run.
const cacheNamespaceAttr = "build-arg:BUILDKIT_CACHE_MOUNT_NS"

// solveRequest is what BuildKit is asked to do: what the Image says, in the way
// that the client asked for. What the client may ask for is in refusal and
// clientAttrs; a request that goes beyond is refused rather than cut to size,
// as its author would take the result for what it is not.
//
// Secrets, SSH agents and credentials of registries are no part of a request:
// BuildKit asks the client's own session for them.
func solveRequest(img *v1alpha1.Image, names []string, asked *controlapi.SolveRequest) (*controlapi.SolveRequest, error) {
	if err := refusal(asked); err != nil {
		return nil, err
	}
	attrs := imageAttrs(img)
	if err := clientAttrs(attrs, asked.FrontendAttrs); err != nil {
		return nil, err
	}
	exporters, err := exporters(img.Namespace, names, asked)
	if err != nil {
		return nil, err
	}
	var inputs map[string]*pb.Definition
	if img.Spec.Source.Inline != "" {
		attrs["filename"] = v1alpha1.DefaultDockerfile
		if inputs, err = inlineInputs(img); err != nil {
			return nil, err
		}
	}
	return &controlapi.SolveRequest{
		Ref:            asked.Ref,
		Session:        asked.Session,
		Frontend:       frontendName,
		FrontendAttrs:  attrs,
		FrontendInputs: inputs,
		Cache:          &controlapi.CacheOptions{},
		// The result's record is Image.status; BuildKit need not keep another.
		Internal:  true,
		Exporters: exporters,
	}, nil
}

// imageAttrs are the frontend's attributes that the Image decides.
func imageAttrs(img *v1alpha1.Image) map[string]string {
	spec := img.DeepCopy()
	v1alpha1.SetImageDefaults(spec)
	attrs := map[string]string{
		"filename":         spec.Spec.Dockerfile,
		resolveModeAttr:    "local",
		namespaceAttr:      img.Namespace,
		cacheNamespaceAttr: img.Namespace,
		// "cmdline" stands for "this frontend was chosen already": a syntax line
		// in the Dockerfile is then a comment.
		"cmdline": "lighter",
	}
	if spec.Spec.Target != "" {
		attrs["target"] = spec.Spec.Target
	}
	for k, v := range spec.Spec.Args {
		if attr := argPrefix + k; attr != cacheNamespaceAttr {
			attrs[attr] = v
		}
	}
	if git := spec.Spec.Source.Git; git != nil {
		attrs["context"] = gitContext(git)
	}
	return attrs
}

// gitContext is a repository as the frontend wants it: URL#ref:folder. The
// frontend takes an http URL for a repository only if it ends in ".git"; servers
// know a repository by both names.
func gitContext(git *v1alpha1.GitSource) string {
	url := git.URL
	if strings.HasPrefix(url, "http") && !strings.HasSuffix(url, ".git") {
		url = strings.TrimSuffix(url, "/") + ".git"
	}
	if git.Ref == "" && git.Path == "" {
		return url
	}
	url += "#" + git.Ref
	if git.Path != "" {
		url += ":" + git.Path
	}
	return url
}

// exporters are where the result goes: what the client wants of it for itself,
// in the order that its session knows, then the image store. The last one's
// digest is the answer.
func exporters(namespace string, names []string, asked *controlapi.SolveRequest) ([]*controlapi.Exporter, error) {
	wanted := asked.Exporters
	if len(wanted) == 0 && asked.ExporterDeprecated != "" {
		wanted = []*controlapi.Exporter{{Type: asked.ExporterDeprecated, Attrs: asked.ExporterAttrsDeprecated}}
	}
	var out []*controlapi.Exporter
	for _, e := range wanted {
		switch e.Type {
		case client.ExporterLocal, client.ExporterTar, client.ExporterOCI, client.ExporterDocker:
			out = append(out, &controlapi.Exporter{Type: e.Type, Attrs: e.Attrs})
		case client.ExporterImage:
			return nil, refused("an output of type image: the result gets the names in the Image's spec.tags, and \"lighter push\" sends it to a registry")
		default:
			return nil, refused("an output of type %s: want local, tar, oci or docker", e.Type)
		}
	}
	records := make([]string, 0, len(names))
	for _, n := range names {
		records = append(records, image.BuiltName(namespace, n))
	}
	attrs := map[string]string{
		"name":           strings.Join(records, ","),
		"unpack":         "true",
		"oci-mediatypes": "true",
	}
	return append(out, &controlapi.Exporter{Type: client.ExporterImage, Attrs: attrs}), nil
}
