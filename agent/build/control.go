package build

import (
	"context"
	"errors"
	"strings"

	"github.com/containerd/containerd/v2/core/images"
	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	digest "github.com/opencontainers/go-digest"
	"google.golang.org/grpc"

	"lighter.dev/lighter/api/v1alpha1"
)

// buildServer is BuildKit's control API as one client sees it: it can send its
// folder, build its Image, follow that, and look at the host. Everything else
// (other builds, pruning, history) is refused by the embedded type.
//
// A client may have several connections, each with a buildServer of its own: what
// belongs together is found by the client's session and build references.
type buildServer struct {
	controlapi.UnimplementedControlServer
	builder         *Builder
	engine          *engine
	namespace, name string
}

func (c *buildServer) key() string { return c.namespace + "/" + c.name }

// Session carries the client's folder; BuildKit calls back through it.
func (c *buildServer) Session(stream grpc.BidiStreamingServer[controlapi.BytesMessage, controlapi.BytesMessage]) error {
	return c.engine.Session(scopedSession{stream, scopeSession(stream.Context(), c.namespace, c.name)})
}

// Status sends progress.
func (c *buildServer) Status(req *controlapi.StatusRequest, stream grpc.ServerStreamingServer[controlapi.StatusResponse]) error {
	ref := scoped(c.namespace, c.name, req.Ref)
	br, leave := c.builder.bridges.join(ref)
	defer leave()
	ended := make(chan error, 1)
	go func() { ended <- c.engine.Status(&controlapi.StatusRequest{Ref: ref}, stream) }()
	select {
	case err := <-ended:
		return err
	case <-br.refused:
		// Solve says why. The call above goes on waiting for a build to appear,
		// for some seconds, and sends nothing.
		return nil
	}
}

// Info tells BuildKit's version.
func (c *buildServer) Info(ctx context.Context, req *controlapi.InfoRequest) (*controlapi.InfoResponse, error) {
	return c.engine.Info(ctx, req)
}

// ListWorkers tells the platform.
func (c *buildServer) ListWorkers(ctx context.Context, req *controlapi.ListWorkersRequest) (*controlapi.ListWorkersResponse, error) {
	return c.engine.ListWorkers(ctx, req)
}

// DiskUsage tells how large the host's build cache is. What is in it may be
// another namespace's business.
func (c *buildServer) DiskUsage(ctx context.Context, req *controlapi.DiskUsageRequest) (*controlapi.DiskUsageResponse, error) {
	usage, err := c.engine.DiskUsage(ctx, &controlapi.DiskUsageRequest{AgeLimit: req.AgeLimit})
	if err != nil {
		return nil, err
	}
	for _, record := range usage.Record {
		record.Description = ""
	}
	return usage, nil
}

// ListenBuildHistory has nothing to tell: the record of a build is its Image.
// Clients ask for it after each build.
func (c *buildServer) ListenBuildHistory(req *controlapi.BuildHistoryRequest, stream grpc.ServerStreamingServer[controlapi.BuildHistoryEvent]) error {
	if !req.EarlyExit {
		<-stream.Context().Done()
	}
	return nil
}

// Solve builds the Image. The answer comes when its status is written.
func (c *buildServer) Solve(ctx context.Context, req *controlapi.SolveRequest) (*controlapi.SolveResponse, error) {
	asked := req.CloneVT()
	asked.Ref, asked.Session = scoped(c.namespace, c.name, req.Ref), scoped(c.namespace, c.name, req.Session)
	br, leave := c.builder.bridges.join(asked.Ref)
	var resp *controlapi.SolveResponse
	var err error
	if req.Frontend == "" && req.Definition == nil {
		resp, err = c.solveByBridge(ctx, br, asked)
	} else {
		resp, err = c.build(ctx, br, asked)
	}
	if br.begun.Load() {
		leave()
	} else {
		br.refuse(leave)
	}
	return resp, err
}

// build waits for its turn, builds and reports.
func (c *buildServer) build(ctx context.Context, br *bridge, asked *controlapi.SolveRequest) (*controlapi.SolveResponse, error) {
	b := c.builder
	done, err := b.takeTurn(ctx, c.key())
	if err != nil {
		return nil, err
	}
	defer done()
	// The object is read again: it may have changed while another build ran.
	img, err := b.cfg.Images.Get(ctx, c.namespace, c.name)
	if err != nil {
		return nil, err
	}
	names, err := buildNames(img)
	if err != nil {
		return nil, err
	}
	req, err := solveRequest(img, names, asked)
	if err != nil {
		return nil, err
	}
	rep, err := b.begin(ctx, img, building)
	if err != nil {
		return nil, err
	}
	br.begun.Store(true)
	output := newOutputTail(ctx)
	resp, res, err := c.solve(ctx, img, names, req, output)
	if err != nil {
		cancelled := ctx.Err() != nil || b.run.Err() != nil
		rep.failed(reasonOf(err), failureMessage(err, output), cancelled)
		return nil, err
	}
	rep.succeeded(res)
	return resp, nil
}

// solve runs BuildKit and gives the result its names.
func (c *buildServer) solve(ctx context.Context, img *v1alpha1.Image, names []string, req *controlapi.SolveRequest, output *outputTail) (resp *controlapi.SolveResponse, res result, err error) {
	store := c.builder.cfg.Store
	defer func() {
		if err != nil {
			err = errors.Join(err, store.Unstage(context.WithoutCancel(ctx), img.Namespace, names))
		}
	}()
	follow, stop := context.WithCancel(ctx)
	followed := make(chan struct{})
	output.ctx = follow
	go func() {
		defer close(followed)
		// It ends with the build, or with follow if there never was one.
		_ = c.engine.Status(&controlapi.StatusRequest{Ref: req.Ref}, statusStream{output})
	}()
	resp, err = c.engine.Solve(ctx, req)
	stop()
	<-followed
	if err != nil {
		return nil, result{}, explained(err, output)
	}
	dgst := digest.Digest(resp.ExporterResponse[exptypes.ExporterImageDigestKey])
	var staged images.Image
	if staged, err = store.Target(ctx, img.Namespace, names[0], dgst); err != nil {
		return nil, result{}, err
	}
	built, err := store.Promote(ctx, img.Namespace, names, staged.Target)
	if err != nil {
		return nil, result{}, err
	}
	resp.ExporterResponse[exptypes.ExporterImageNameKey] = strings.Join(names, ",")
	return resp, result{Digest: built.Target.String(), Size: built.LayerSize}, nil
}
