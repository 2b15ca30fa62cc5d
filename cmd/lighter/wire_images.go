package main

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"

	"lighter.dev/lighter/agent/image"
	"lighter.dev/lighter/api/v1alpha1"
)

const (
	// byTag finds Images by namespace/tag, for the normalised form of each tag.
	byTag = "tag"
	// byBuiltDigest finds Images by the digest of their last successful build.
	byBuiltDigest = "builtDigest"
	// byImageDigest finds Nodes by the digest of each image they hold.
	byImageDigest = "imageDigest"
)

// clusterBuilds tells the image store what the cluster builds itself.
type clusterBuilds struct {
	images cache.Indexer
}

var _ image.Builds = clusterBuilds{}

// indexImages prepares an Image informer for clusterBuilds and peerHolders.
func indexImages(informer cache.SharedIndexInformer) error {
	return informer.AddIndexers(cache.Indexers{
		byTag: func(obj any) ([]string, error) {
			img, ok := obj.(*v1alpha1.Image)
			if !ok {
				return nil, fmt.Errorf("index Images by tag: unexpected %T", obj)
			}
			var names []string
			for _, tag := range img.Spec.Tags {
				if name, err := v1alpha1.NormalizeTag(tag); err == nil {
					names = append(names, img.Namespace+"/"+name)
				}
			}
			return names, nil
		},
		byBuiltDigest: func(obj any) ([]string, error) {
			img, ok := obj.(*v1alpha1.Image)
			if !ok {
				return nil, fmt.Errorf("index Images by digest: unexpected %T", obj)
			}
			return []string{img.Status.Digest}, nil
		},
	})
}

// Lookup implements image.Builds: an Image speaks for its own namespace alone.
// Where several Images of it claim one name, the oldest claim counts.
func (b clusterBuilds) Lookup(_ context.Context, namespace, ref string) (digest.Digest, bool) {
	objs, err := b.images.ByIndex(byTag, namespace+"/"+ref)
	if err != nil || len(objs) == 0 {
		return "", false
	}
	oldest := objs[0].(*v1alpha1.Image)
	for _, obj := range objs[1:] {
		if img := obj.(*v1alpha1.Image); img.Before(oldest) {
			oldest = img
		}
	}
	return digest.Digest(oldest.Status.Digest), true
}

// peerHolders finds the other agents that hold an image, from what the nodes
// report and from where Images were built: right after a build its node has not
// reported yet. It works from informers' caches, so also while the control plane
// is away.
type peerHolders struct {
	nodes, images cache.Indexer
	self          string
	// alive tells whether a node answers now, lost whether it did once and does not now.
	alive, lost func(node string) bool
}

// indexNodesByImage prepares a Node informer for peerHolders.
func indexNodesByImage(informer cache.SharedIndexInformer) error {
	return informer.AddIndexers(cache.Indexers{byImageDigest: func(obj any) ([]string, error) {
		node, ok := obj.(*corev1.Node)
		if !ok {
			return nil, fmt.Errorf("index Nodes by image: unexpected %T", obj)
		}
		return digestsOf(node), nil
	}})
}

// digestsOf are the images that a node says it holds.
func digestsOf(node *corev1.Node) []string {
	var digests []string
	for _, held := range node.Status.Images {
		for _, name := range held.Names {
			if _, dgst, ok := strings.Cut(name, "@"); ok {
				digests = append(digests, dgst)
			}
		}
	}
	slices.Sort(digests)
	return slices.Compact(digests)
}

// Holders implements image.PeerFinder. Those that answer come first.
func (p peerHolders) Holders(_ context.Context, dgst digest.Digest) []image.Peer {
	var near, far []image.Peer
	for _, node := range p.nodesWith(dgst.String()) {
		peer, ok := peerOf(node)
		if node.Name == p.self || !ok {
			continue
		}
		if p.alive(node.Name) {
			near = append(near, peer)
		} else {
			far = append(far, peer)
		}
	}
	return append(near, far...)
}

var (
	_ image.PeerFinder      = peerHolders{}
	_ image.NeighbourFinder = peerHolders{}
)

// Neighbours implements image.NeighbourFinder. Hosts that start together want the
// same images before gossip has brought them together: until it has heard of a node,
// what the control plane heard counts.
func (p peerHolders) Neighbours(context.Context) []image.Peer {
	var out []image.Peer
	for _, obj := range p.nodes.List() {
		node := obj.(*corev1.Node)
		if node.Name != p.self && (p.alive(node.Name) || nodeReady(node) && !p.lost(node.Name)) {
			if peer, ok := peerOf(node); ok {
				out = append(out, peer)
			}
		}
	}
	return out
}

// peerOf is how the agent of a node is reached.
func peerOf(node *corev1.Node) (peer image.Peer, ok bool) {
	addr := nodeAddress(node)
	port := strconv.Itoa(int(node.Status.DaemonEndpoints.KubeletEndpoint.Port))
	return image.Peer{Name: node.Name, URL: "https://" + net.JoinHostPort(addr, port)}, addr != ""
}

// nodesWith are the nodes that hold a digest, as far as the cluster knows.
func (p peerHolders) nodesWith(dgst string) map[string]*corev1.Node {
	found := map[string]*corev1.Node{}
	reported, _ := p.nodes.ByIndex(byImageDigest, dgst) // the index exists
	for _, obj := range reported {
		node := obj.(*corev1.Node)
		found[node.Name] = node
	}
	built, _ := p.images.ByIndex(byBuiltDigest, dgst)
	for _, obj := range built {
		if node, ok, _ := p.nodes.GetByKey(obj.(*v1alpha1.Image).Status.NodeName); ok {
			found[node.(*corev1.Node).Name] = node.(*corev1.Node)
		}
	}
	return found
}

// nodeAddress is the node's InternalIP, or "".
func nodeAddress(node *corev1.Node) string {
	for _, addr := range node.Status.Addresses {
		if addr.Type == corev1.NodeInternalIP {
			return addr.Address
		}
	}
	return ""
}

// heldImages are the images of this host as its Node reports them.
func (h *host) heldImages(ctx context.Context) ([]corev1.ContainerImage, error) {
	list, err := h.store.List(ctx)
	if err != nil {
		return nil, err
	}
	var out []corev1.ContainerImage
	for _, img := range list {
		out = append(out, corev1.ContainerImage{Names: img.Names, SizeBytes: img.Size})
	}
	return out, nil
}
