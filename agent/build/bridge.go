package build

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/client/buildid"
	gateway "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/apicaps"
	"github.com/moby/buildkit/util/grpcerrors"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// bridgeServer is as much of BuildKit's gateway API (LLBBridge) as buildctl and
// docker buildx need. They do not say in Control.Solve what they want: that call
// only waits, and they say it in LLBBridge.Solve, then end with LLBBridge.Return.
// BuildKit's own bridge would let them build graphs of their own, run containers
// and read files of any image; here LLBBridge.Solve is the build of the Image and
// the embedded type refuses everything else.
type bridgeServer struct {
	gateway.UnimplementedLLBBridgeServer
	*buildServer
}

// bridge is where the calls of one build meet.
type bridge struct {
	asks    chan bridgeAsk
	returns chan error
	// begun: BuildKit knows of the build. refused is closed if it never will.
	begun   atomic.Bool
	refused chan struct{}
	once    sync.Once
	users   int
}

// statusPatience is how long after a refusal the call for the build's progress
// may arrive, and end at once: BuildKit would wait for the build to appear.
const statusPatience = 10 * time.Second

// refuse ends calls for progress that there will not be.
func (b *bridge) refuse(leave func()) {
	b.once.Do(func() { close(b.refused) })
	time.AfterFunc(statusPatience, leave)
}

type bridgeAsk struct {
	req    *gateway.SolveRequest
	answer chan<- error
}

// bridges are those of all connections, by scoped build reference.
type bridges struct {
	mu    sync.Mutex
	byRef map[string]*bridge
}

// join finds or makes a bridge: either call may be the first.
func (b *bridges) join(ref string) (br *bridge, leave func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	br = b.byRef[ref]
	if br == nil {
		br = &bridge{asks: make(chan bridgeAsk), returns: make(chan error, 1), refused: make(chan struct{})}
		b.byRef[ref] = br
	}
	br.users++
	return br, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		if br.users--; br.users == 0 {
			delete(b.byRef, ref)
		}
	}
}

// solveByBridge is Control.Solve of a client that says the rest on the bridge.
// It ends when the client has taken the result.
func (c *buildServer) solveByBridge(ctx context.Context, br *bridge, asked *controlapi.SolveRequest) (*controlapi.SolveResponse, error) {
	var resp *controlapi.SolveResponse
	for {
		select {
		case ask := <-br.asks:
			if resp != nil {
				ask.answer <- refused("a second build in one request")
				continue
			}
			var err error
			resp, err = c.buildAsked(ctx, br, asked, ask.req)
			ask.answer <- err
			if err != nil {
				return nil, err
			}
		case err := <-br.returns:
			if err == nil && resp == nil {
				return withoutBuild(asked)
			}
			return resp, err
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// withoutBuild answers a client that wanted to know what the bridge can do, as
// docker buildx does before each build. If it wants a result too, it has none.
func withoutBuild(asked *controlapi.SolveRequest) (*controlapi.SolveResponse, error) {
	if len(asked.Exporters) > 0 || asked.ExporterDeprecated != "" {
		return nil, refused("an output of a request without a build: choose the frontend %s", frontendName)
	}
	return &controlapi.SolveResponse{}, nil
}

// buildAsked builds what a client said on the bridge.
func (c *buildServer) buildAsked(ctx context.Context, br *bridge, asked *controlapi.SolveRequest, ask *gateway.SolveRequest) (*controlapi.SolveResponse, error) {
	if len(ask.CacheImports) > 0 {
		return nil, refused("caches to import: it keeps one of its own")
	}
	if len(ask.SourcePolicies) > 0 {
		return nil, refused("a source policy")
	}
	asked.Frontend, asked.FrontendAttrs = ask.Frontend, ask.FrontendOpt
	asked.Definition, asked.FrontendInputs = ask.Definition, ask.FrontendInputs
	return c.build(ctx, br, asked)
}

// bridge is that of a call, by the build reference in its headers.
func (s *bridgeServer) bridge(ctx context.Context) (br *bridge, leave func()) {
	return s.builder.bridges.join(scoped(s.namespace, s.name, buildid.FromIncomingContext(ctx)))
}

// Solve builds and answers when the image has its names. The result is a token
// that the client hands back to Return.
func (s *bridgeServer) Solve(ctx context.Context, req *gateway.SolveRequest) (*gateway.SolveResponse, error) {
	br, leave := s.bridge(ctx)
	defer leave()
	answer := make(chan error, 1)
	select {
	case br.asks <- bridgeAsk{req, answer}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	select {
	case err := <-answer:
		if err != nil {
			return nil, err
		}
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return &gateway.SolveResponse{Result: &gateway.Result{Result: &gateway.Result_Ref{Ref: &gateway.Ref{Id: "built"}}}}, nil
}

// Return ends the build. Its result is known already; an error is the client's.
func (s *bridgeServer) Return(ctx context.Context, req *gateway.ReturnRequest) (*gateway.ReturnResponse, error) {
	br, leave := s.bridge(ctx)
	defer leave()
	var err error
	if req.Error != nil && req.Error.Code != int32(codes.OK) {
		err = grpcerrors.FromGRPC(status.ErrorProto(req.Error))
		if err == nil {
			err = errors.New(req.Error.Message)
		}
	}
	select {
	case br.returns <- err:
	default: // it has returned before
	}
	return &gateway.ReturnResponse{}, nil
}

// Warn is a client's remark on its own build.
func (s *bridgeServer) Warn(context.Context, *gateway.WarnRequest) (*gateway.WarnResponse, error) {
	return &gateway.WarnResponse{}, nil
}

// Inputs are graphs that a client gave; there are none.
func (s *bridgeServer) Inputs(context.Context, *gateway.InputsRequest) (*gateway.InputsResponse, error) {
	return &gateway.InputsResponse{}, nil
}

// bridgeCaps are what clients may count on.
var bridgeCaps = []apicaps.CapID{
	gateway.CapSolveBase, gateway.CapSolveInlineReturn, gateway.CapReturnResult, gateway.CapReturnMap,
	gateway.CapProtoRefArray, gateway.CapReferenceOutput, gateway.CapFrontendInputs, gateway.CapGatewaySolveMetadata,
	gateway.CapGatewayEvaluateSolve, gateway.CapGatewayWarnings,
}

// Ping tells what the bridge can do.
func (s *bridgeServer) Ping(ctx context.Context, _ *gateway.PingRequest) (*gateway.PongResponse, error) {
	workers, err := s.ListWorkers(ctx, &controlapi.ListWorkersRequest{})
	if err != nil {
		return nil, err
	}
	pong := &gateway.PongResponse{LLBCaps: pb.Caps.All(), Workers: workers.Record}
	for _, id := range bridgeCaps {
		pong.FrontendAPICaps = append(pong.FrontendAPICaps, &apicaps.PBCap{ID: string(id), Enabled: true})
	}
	return pong, nil
}
