package build

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"

	"github.com/containerd/containerd/v2/core/images"
	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	digest "github.com/opencontainers/go-digest"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"lighter.dev/lighter/api/v1alpha1"
)

// buildServer is BuildKit's control API as one client sees it: it can send its
// folder, start the one build of its Image, and follow it. Everything else
// (other builds, caches, history) is refused by the embedded type.
type buildServer struct {
	controlapi.UnimplementedControlServer
	builder         *Builder
	engine          *engine
	namespace, name string
	solved          atomic.Bool
}

// Session carries the client's folder; BuildKit calls back through it.
func (c *buildServer) Session(stream grpc.BidiStreamingServer[controlapi.BytesMessage, controlapi.BytesMessage]) error {
	return c.engine.Session(scopedSession{stream, scopeSharedKey(stream.Context(), c.namespace)})
}

// sharedKeyHeader is the session header (session.headerSessionSharedKey) by which
// BuildKit finds the copy of the client's folder that it kept from last time.
const sharedKeyHeader = "x-docker-expose-session-sharedkey"

// scopeSharedKey puts the namespace in front of the client's key. Clients choose
// it; with another namespace's, one could have its files by naming their sizes
// and times only.
func scopeSharedKey(ctx context.Context, namespace string) context.Context {
	md, _ := metadata.FromIncomingContext(ctx)
	md = md.Copy()
	key := ""
	if all := md.Get(sharedKeyHeader); len(all) > 0 {
		key = all[0]
	}
	md.Set(sharedKeyHeader, namespace+"/"+key)
	return metadata.NewIncomingContext(ctx, md)
}

// scopedSession is a session's stream with another context.
type scopedSession struct {
	grpc.BidiStreamingServer[controlapi.BytesMessage, controlapi.BytesMessage]
	ctx context.Context
}

// Context carries the client's headers.
func (s scopedSession) Context() context.Context { return s.ctx }

// Status sends progress.
func (c *buildServer) Status(req *controlapi.StatusRequest, stream grpc.ServerStreamingServer[controlapi.StatusResponse]) error {
	return c.engine.Status(req, stream)
}

// Info tells BuildKit's version.
func (c *buildServer) Info(ctx context.Context, req *controlapi.InfoRequest) (*controlapi.InfoResponse, error) {
	return c.engine.Info(ctx, req)
}

// ListWorkers tells the platform.
func (c *buildServer) ListWorkers(ctx context.Context, req *controlapi.ListWorkersRequest) (*controlapi.ListWorkersResponse, error) {
	return c.engine.ListWorkers(ctx, req)
}

// Solve builds the Image. The answer comes when its status is written.
func (c *buildServer) Solve(ctx context.Context, req *controlapi.SolveRequest) (*controlapi.SolveResponse, error) {
	if c.solved.Swap(true) {
		return nil, status.Error(codes.FailedPrecondition, "one connection carries one build")
	}
	b, key := c.builder, c.namespace+"/"+c.name
	done, err := b.takeTurn(ctx, key)
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
	rep, err := b.begin(ctx, img)
	if err != nil {
		return nil, err
	}
	output := newOutputTail(ctx)
	resp, res, err := c.solve(ctx, img, names, req, output)
	if err != nil {
		cancelled := ctx.Err() != nil || b.run.Err() != nil
		rep.failed(failureMessage(err, output), cancelled)
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
	resp, err = c.engine.Solve(ctx, solveRequest(img, names, req))
	stop()
	<-followed
	if err != nil {
		return nil, result{}, err
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
