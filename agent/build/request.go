package build

import (
	"fmt"
	"strings"

	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/client"

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
// cannot set it: its attributes are dropped, and the args of an Image become
// attributes of another prefix.
const namespaceAttr = "lighter-namespace"

// cacheNamespaceAttr keeps the cache mounts (RUN --mount=type=cache) of
// namespaces apart: what one writes there, another's build would run.
const cacheNamespaceAttr = "build-arg:BUILDKIT_CACHE_MOUNT_NS"

// solveRequest is what BuildKit is asked to do: what the Image says. Of the
// client's request only its identity, its session and no-cache are taken, so
// that a client that may build one Image cannot write another, mount secrets
// of the host or push anywhere.
func solveRequest(img *v1alpha1.Image, names []string, asked *controlapi.SolveRequest) *controlapi.SolveRequest {
	spec := img.DeepCopy()
	v1alpha1.SetImageDefaults(spec)
	attrs := map[string]string{
		"filename":           spec.Spec.Dockerfile,
		"image-resolve-mode": "local",
		// "cmdline" stands for "this frontend was chosen already": a syntax line
		// in the Dockerfile is then a comment.
		"cmdline": "lighter",
	}
	if spec.Spec.Target != "" {
		attrs["target"] = spec.Spec.Target
	}
	for k, v := range spec.Spec.Args {
		attrs["build-arg:"+k] = v
	}
	attrs[namespaceAttr], attrs[cacheNamespaceAttr] = img.Namespace, img.Namespace
	if v, ok := asked.FrontendAttrs["no-cache"]; ok {
		attrs["no-cache"] = v
	}
	records := make([]string, 0, len(names))
	for _, n := range names {
		records = append(records, image.BuiltName(img.Namespace, n))
	}
	return &controlapi.SolveRequest{
		Ref:           asked.Ref,
		Session:       asked.Session,
		Frontend:      frontendName,
		FrontendAttrs: attrs,
		Cache:         &controlapi.CacheOptions{},
		// The result's record is Image.status; BuildKit need not keep another.
		Internal: true,
		Exporters: []*controlapi.Exporter{{
			Type: client.ExporterImage,
			Attrs: map[string]string{
				"name":           strings.Join(records, ","),
				"unpack":         "true",
				"oci-mediatypes": "true",
			},
		}},
	}
}
