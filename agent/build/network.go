package build

import (
	"context"
	"fmt"

	"github.com/moby/buildkit/executor/resources/types"
	"github.com/moby/buildkit/identity"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/network"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Network attaches RUN steps to a network. The overlay's bridge is one.
type Network interface {
	// Attach makes a network namespace for one step and returns its path and a
	// function that takes all of it away again.
	Attach(ctx context.Context, id, hostname string) (path string, detach func() error, err error)
}

// networkProviders says what the networks of a Dockerfile's RUN --network mean:
// the default one is n, or the host's if n is nil.
func networkProviders(n Network) map[pb.NetMode]network.Provider {
	host := network.NewHostProvider()
	out := map[pb.NetMode]network.Provider{
		pb.NetMode_HOST:  host,
		pb.NetMode_NONE:  network.NewNoneProvider(),
		pb.NetMode_UNSET: host,
	}
	if n != nil {
		out[pb.NetMode_UNSET] = attached{n}
	}
	return out
}

// attached is a Network in BuildKit's words.
type attached struct{ network Network }

func (attached) Close() error { return nil }

func (a attached) New(ctx context.Context, hostname string, _ network.NamespaceOptions) (network.Namespace, error) {
	path, detach, err := a.network.Attach(ctx, "build-"+identity.NewID(), hostname)
	if err != nil {
		return nil, fmt.Errorf("network of a build step: %w", err)
	}
	return &stepNamespace{path: path, detach: detach}, nil
}

type stepNamespace struct {
	path   string
	detach func() error
}

// Set makes the runtime join the namespace.
func (n *stepNamespace) Set(s *specs.Spec) error {
	for i, ns := range s.Linux.Namespaces {
		if ns.Type == specs.NetworkNamespace {
			s.Linux.Namespaces[i].Path = n.path
			return nil
		}
	}
	s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: n.path})
	return nil
}

func (n *stepNamespace) Close() error { return n.detach() }

// Sample would feed BuildKit's resource statistics, which nobody reads here.
func (n *stepNamespace) Sample() (*types.NetworkSample, error) { return nil, nil }
