package build

import (
	"context"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"lighter.dev/lighter/api/agentapi"
	"lighter.dev/lighter/api/v1alpha1"
)

// Work is how an Image gets its content. It is part of the journal.
type Work string

// The sorts of work. Import and Commit are for Make.
const (
	building Work = ""
	Import   Work = "import"
	Commit   Work = "commit"
)

// words are what people read about a sort of work.
type words struct {
	reason string // of its success
	noun   string
	doing  string
	done   string
	again  string // advice after it was cut off
}

func (w Work) words() words {
	switch w {
	case Import:
		return words{v1alpha1.ReasonImported, "import", "Importing", "imported", "Send the archive again."}
	case Commit:
		return words{v1alpha1.ReasonCommitted, "commit", "Committing", "committed", "Commit the container again."}
	default:
		return words{v1alpha1.ReasonBuildSucceeded, "build", "Building", "built", "Apply again to build."}
	}
}

// Make gives an Image its content by other means than a build: it waits for the
// Image's turn, lets do write an image into the Store, gives it all of the Image's
// tags and writes the status, as after a build. What do writes is kept by the lease
// in its context and gone if the work fails or the agent is killed; then the status
// says so.
func (b *Builder) Make(ctx context.Context, namespace, name string, what Work, do func(context.Context) (ocispec.Descriptor, error)) (agentapi.Result, error) {
	leave, err := b.join()
	if err != nil {
		return agentapi.Result{}, err
	}
	defer leave()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(b.run, cancel)()
	done, err := b.takeTurn(ctx, namespace+"/"+name)
	if err != nil {
		return agentapi.Result{}, err
	}
	defer done()
	img, err := b.cfg.Images.Get(ctx, namespace, name)
	if err != nil {
		return agentapi.Result{}, err
	}
	names, err := buildNames(img)
	if err != nil {
		return agentapi.Result{}, err
	}
	rep, err := b.begin(ctx, img, what)
	if err != nil {
		return agentapi.Result{}, err
	}
	res, err := b.make(ctx, namespace, names, do)
	if err != nil {
		rep.failed(v1alpha1.ReasonBuildFailed, err.Error(), ctx.Err() != nil)
		return agentapi.Result{}, err
	}
	rep.succeeded(res)
	return agentapi.Result{Name: names[0], Digest: res.Digest, Size: res.Size}, nil
}

func (b *Builder) make(ctx context.Context, namespace string, names []string, do func(context.Context) (ocispec.Descriptor, error)) (result, error) {
	leased, release, err := b.cfg.Store.Lease(ctx)
	if err != nil {
		return result{}, err
	}
	defer release()
	target, err := do(leased)
	if err != nil {
		return result{}, err
	}
	made, err := b.cfg.Store.Promote(leased, namespace, names, target)
	if err != nil {
		return result{}, err
	}
	return result{Digest: made.Target.String(), Size: made.LayerSize}, nil
}
