package main

import (
	"context"
	"errors"
	"path"

	"github.com/moby/buildkit/executor/oci"

	"lighter.dev/lighter/agent/build"
	"lighter.dev/lighter/agent/runtime"
	"lighter.dev/lighter/overlay/attach"
)

// openBuilder makes the builder. Its RUN steps are on the pods' network and use
// cluster DNS.
func (h *host) openBuilder(ctx context.Context, network *hostNetwork) error {
	cfg := build.Config{
		Root: h.dir("build"), Store: h.store, NodeName: h.options.nodeName, Images: build.FromClient(h.own), Events: h.recorder,
		CgroupParent: path.Join(h.options.cgroupRoot, "build"), Runtime: h.options.runtime,
		Network: stepNetwork{attacher: network.attacher, engine: h.engine, swept: h.swept},
		DNS:     &oci.DNSConfig{Nameservers: []string{network.dnsServer().String()}},
		Log:     h.logOf("build"),
	}
	err := h.options.builds.apply(&cfg)
	if err != nil {
		return err
	}
	h.builder, err = build.New(ctx, cfg)
	return err
}

// stepNetwork attaches RUN steps to the overlay's bridge.
type stepNetwork struct {
	attacher *attach.Attacher
	engine   *runtime.Engine
	swept    <-chan struct{}
}

// Attach implements build.Network.
func (n stepNetwork) Attach(ctx context.Context, id, hostname string) (string, func() error, error) {
	select {
	case <-n.swept:
	case <-ctx.Done():
		return "", nil, ctx.Err()
	}
	spaces, err := n.engine.PinNamespaces(ctx, id, hostname, struct{ Net, IPC, UTS bool }{Net: true})
	if err != nil {
		return "", nil, err
	}
	box := attach.Sandbox{PodUID: id, NetNS: spaces.Net}
	// The step's own context may have ended by then.
	leave := context.WithoutCancel(ctx)
	detach := func() error {
		return errors.Join(n.attacher.Detach(leave, box), n.engine.UnpinNamespaces(leave, id))
	}
	if _, err := n.attacher.Attach(ctx, box); err != nil {
		return "", nil, errors.Join(err, detach())
	}
	return spaces.Net, detach, nil
}
