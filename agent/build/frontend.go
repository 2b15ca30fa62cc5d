package build

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/moby/buildkit/client/llb/sourceresolver"
	dockerfile "github.com/moby/buildkit/frontend/dockerfile/builder"
	gateway "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/solver/pb"
	digest "github.com/opencontainers/go-digest"

	"lighter.dev/lighter/agent/image"
	"lighter.dev/lighter/api/v1alpha1"
)

// sourceScheme is how BuildKit names container images in its graphs.
const sourceScheme = "docker-image://"

// dockerfileFrontend is BuildKit's Dockerfile frontend with two additions: a FROM
// that names an image of the cluster is fetched from this host's peers before
// BuildKit looks for it, and one without a registry's host in front is looked for
// at the configured default registry.
func dockerfileFrontend(store *image.Store) gateway.BuildFunc {
	return func(ctx context.Context, c gateway.Client) (*gateway.Result, error) {
		opts := c.BuildOpts().Opts
		_, pull := opts[pullAttr]
		return dockerfile.Build(ctx, &nearbyImages{
			Client: c, store: store, namespace: opts[namespaceAttr], pull: pull,
			hubNames: sync.OnceValue(func() map[string]bool { return writtenHubNames(ctx, c) }),
		})
	}
}

type nearbyImages struct {
	gateway.Client
	store *image.Store
	// namespace is that of the Image, whose builds it may use.
	namespace string
	// pull asks the registry about images that are not the cluster's own.
	pull bool
	// hubNames are those that do not mean the default registry.
	hubNames func() map[string]bool
}

// ResolveImageConfig is asked for each FROM.
func (n *nearbyImages) ResolveImageConfig(ctx context.Context, ref string, opt sourceresolver.Opt) (string, digest.Digest, []byte, error) {
	full, base, err := n.fetch(ctx, ref)
	if err != nil {
		return "", "", nil, err
	}
	opt.LogName = strings.Replace(opt.LogName, ref, full, 1)
	name, dgst, config, err := n.Client.ResolveImageConfig(ctx, base, n.mode(opt, base == full))
	if err != nil {
		return "", "", nil, baseError{image.ExplainBase(base, err)}
	}
	return name, dgst, config, nil
}

// ResolveSourceMetadata is asked for images in COPY --from and named contexts.
func (n *nearbyImages) ResolveSourceMetadata(ctx context.Context, op *pb.SourceOp, opt sourceresolver.Opt) (*sourceresolver.MetaResponse, error) {
	ref, isImage := strings.CutPrefix(op.Identifier, sourceScheme)
	if !isImage || ref == "" {
		return n.Client.ResolveSourceMetadata(ctx, op, opt)
	}
	full, base, err := n.fetch(ctx, ref)
	if err != nil {
		return nil, err
	}
	op = op.CloneVT()
	op.Identifier = sourceScheme + base
	meta, err := n.Client.ResolveSourceMetadata(ctx, op, n.mode(opt, base == full))
	if err != nil {
		return nil, baseError{image.ExplainBase(base, err)}
	}
	return meta, nil
}

// mode makes the answer that of the registry, if that was asked for. The answer
// has a digest, by which the frontend pins what it builds on.
func (n *nearbyImages) mode(opt sourceresolver.Opt, foreign bool) sourceresolver.Opt {
	if !n.pull || !foreign {
		return opt
	}
	how := sourceresolver.ResolveImageOpt{}
	if opt.ImageOpt != nil {
		how = *opt.ImageOpt
	}
	how.ResolveMode = "pull"
	opt.ImageOpt = &how
	return opt
}

// fetch makes a base image present, if it is near. It returns the full name, with
// the registry that is meant, and the reference that BuildKit is to use for it.
func (n *nearbyImages) fetch(ctx context.Context, ref string) (full, base string, err error) {
	full, err = n.store.Qualify(ctx, n.namespace, ref, n.pull)
	if err == nil && full != ref && n.hubNames()[ref] {
		full = ref
	}
	if err == nil {
		base, err = n.store.EnsureNearby(ctx, n.namespace, full)
	}
	if err != nil {
		return "", "", baseError{fmt.Errorf("base image %s: %w", ref, err)}
	}
	return full, base, nil
}

// baseError is a failure to get what a Dockerfile builds on. The Dockerfile may be
// right: the base is yet to be built, or its registry cannot be reached.
type baseError struct{ error }

func (e baseError) Unwrap() error { return e.error }

// reasonOf is what an Image's status calls a failure.
func reasonOf(err error) string {
	if errors.As(err, &baseError{}) {
		return v1alpha1.ReasonBaseUnavailable
	}
	return v1alpha1.ReasonBuildFailed
}
