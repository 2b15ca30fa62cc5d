package image

import (
	"context"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
	corev1 "k8s.io/api/core/v1"
)

// Builds knows the Image objects of the cluster.
type Builds interface {
	// Lookup tells whether an Image object of the namespace declares the full
	// name ref, and which digest its last successful build had ("" if none
	// succeeded yet). Image objects of other namespaces do not count.
	Lookup(ctx context.Context, namespace, ref string) (built digest.Digest, declared bool)
}

// localState is what this host has under a name.
type localState struct {
	// Digest is what the name means here, "" if nothing.
	Digest digest.Digest
	// Own: the image was built or imported in the cluster; no registry knows it.
	Own bool
}

// step is one thing to try for a request, in order.
type step string

const (
	// useLocal: take what is here.
	useLocal step = "local"
	// askPeers: find out from peers what the name means, and fetch it there.
	askPeers step = "peers"
	// askOwn is askPeers for images that the cluster built or imported. It is
	// what is left when a registry has answered no: a pulled image of a peer
	// would get round the registry's refusal.
	askOwn step = "own"
	// askRegistry: find out from the registry what the name means, then fetch
	// the digest from peers, else from the registry.
	askRegistry step = "registry"
	// fetchDigest: the digest is known; fetch it from peers, else from the
	// registry unless the cluster built it.
	fetchDigest step = "digest"
)

// plan is how a request is answered: the digest that it has to have ("" while
// only the name is known) and the steps to try until one succeeds.
type plan struct {
	Want  digest.Digest
	Steps []step
	// Built: the cluster builds this name, a registry is never asked.
	Built bool
}

// decide is the whole rule of pull policies. It is pure.
//
// For an image that the asking namespace has the cluster build, peers are its
// registry: even policy Never lets the agent fetch it from another host, as
// Never is what users of locally built images write to keep registries out.
func decide(name string, pin digest.Digest, policy corev1.PullPolicy, here localState, built digest.Digest, declared bool) (plan, error) {
	if policy == "" {
		policy = defaultPolicy(name, pin)
	}
	want := pin
	if declared {
		if want == "" {
			want = built
		}
		if want == "" {
			return plan{}, fmt.Errorf("%w: an Image object declares %s, but no build of it has succeeded yet: see its conditions (get images)", ErrNotBuilt, name)
		}
		return plan{Want: want, Steps: []step{useLocal, fetchDigest}, Built: true}, nil
	}
	switch {
	case policy == corev1.PullNever:
		return plan{Want: want, Steps: []step{useLocal}}, nil
	case want != "":
		return plan{Want: want, Steps: []step{useLocal, fetchDigest}}, nil
	case here.Own && here.Digest != "":
		return plan{Steps: []step{useLocal, askPeers}}, nil
	case policy == corev1.PullAlways:
		return plan{Steps: []step{askRegistry, askPeers}}, nil
	default:
		return plan{Steps: []step{useLocal, askPeers, askRegistry}}, nil
	}
}

// defaultPolicy is Kubernetes' default: Always for :latest, else IfNotPresent.
func defaultPolicy(name string, pin digest.Digest) corev1.PullPolicy {
	if pin == "" && strings.HasSuffix(name, ":latest") {
		return corev1.PullAlways
	}
	return corev1.PullIfNotPresent
}
