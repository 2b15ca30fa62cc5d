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
	// byImageDigest finds Nodes by the digest of each image they hold.
	byImageDigest = "imageDigest"
)

// clusterBuilds tells the image store what the cluster builds itself.
type clusterBuilds struct {
	images cache.Indexer
}

var _ image.Builds = clusterBuilds{}

// indexImagesByTag prepares an Image informer for clusterBuilds.
func indexImagesByTag(informer cache.SharedIndexInformer) error {
	return informer.AddIndexers(cache.Indexers{byTag: func(obj any) ([]string, error) {
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
	}})
}

// Lookup implements image.Builds: an Image speaks for its own namespace alone.
// Where several Images of it claim one name, the oldest claim counts.
func (b clusterBuilds) Lookup(_ context.Context, namespace, ref string) (digest.Digest, bool) {
	objs, err := b.images.ByIndex(byTag, namespace+"/"+ref)
	if err != nil || len(objs) == 0 {
		return "", false
	}
	oldest := slices.MinFunc(objs, func(x, y any) int {
		a, b := x.(*v1alpha1.Image), y.(*v1alpha1.Image)
		if c := a.CreationTimestamp.Compare(b.CreationTimestamp.Time); c != 0 {
			return c
		}
		return strings.Compare(string(a.UID), string(b.UID))
	})
	return digest.Digest(oldest.(*v1alpha1.Image).Status.Digest), true
}

// peerHolders finds the other agents that hold an image, from what the nodes
// report. It works from the informer's cache, so also while the control plane
// is away.
type peerHolders struct {
	nodes cache.Indexer
	self  string
	// alive tells whether a node answers now.
	alive func(node string) bool
}

// indexNodesByImage prepares a Node informer for peerHolders.
func indexNodesByImage(informer cache.SharedIndexInformer) error {
	return informer.AddIndexers(cache.Indexers{byImageDigest: func(obj any) ([]string, error) {
		node, ok := obj.(*corev1.Node)
		if !ok {
			return nil, fmt.Errorf("index Nodes by image: unexpected %T", obj)
		}
		var digests []string
		for _, held := range node.Status.Images {
			for _, name := range held.Names {
				if _, dgst, ok := strings.Cut(name, "@"); ok {
					digests = append(digests, dgst)
				}
			}
		}
		slices.Sort(digests)
		return slices.Compact(digests), nil
	}})
}

// Holders implements image.PeerFinder.
func (p peerHolders) Holders(_ context.Context, dgst digest.Digest) []image.Peer {
	objs, err := p.nodes.ByIndex(byImageDigest, dgst.String())
	if err != nil {
		return nil
	}
	var peers []image.Peer
	for _, obj := range objs {
		node := obj.(*corev1.Node)
		addr := nodeAddress(node)
		if node.Name == p.self || addr == "" || !p.alive(node.Name) {
			continue
		}
		port := int(node.Status.DaemonEndpoints.KubeletEndpoint.Port)
		peers = append(peers, image.Peer{Name: node.Name, URL: "https://" + net.JoinHostPort(addr, strconv.Itoa(port))})
	}
	return peers
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
