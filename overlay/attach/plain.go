package attach

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"lighter.dev/lighter/overlay/netns"
)

// hostDriver is for pods in the host's namespace: their addresses are the node's
// and their ports are the host's already.
type hostDriver struct{ ips []netip.Addr }

func (d hostDriver) Attach(context.Context, Sandbox) (Result, error) {
	return Result{IPs: slices.Clone(d.ips)}, nil
}

func (d hostDriver) Status(ctx context.Context, s Sandbox) (Result, error) { return d.Attach(ctx, s) }

func (hostDriver) Detach(context.Context, Sandbox) error { return nil }

func (hostDriver) Keep(context.Context, []string) error { return nil }

// noneDriver is for pods that see nothing but their own loopback.
type noneDriver struct {
	open func(path string) (netns.Kernel, error)
}

func (d noneDriver) Attach(_ context.Context, s Sandbox) (Result, error) {
	if len(s.Ports) > 0 {
		return Result{}, fmt.Errorf("attach pod %s/%s: a pod without a network cannot publish ports", s.PodNamespace, s.PodName)
	}
	pod, err := d.open(s.NetNS)
	if err != nil {
		return Result{}, fmt.Errorf("attach pod %s/%s: %w", s.PodNamespace, s.PodName, err)
	}
	defer func() { _ = pod.Close() }()
	if err := pod.SetUp(loopbackIndex, true); err != nil {
		return Result{}, fmt.Errorf("attach pod %s/%s: loopback: %w", s.PodNamespace, s.PodName, err)
	}
	return Result{}, nil
}

func (d noneDriver) Status(_ context.Context, s Sandbox) (Result, error) {
	pod, err := d.open(s.NetNS)
	if errors.Is(err, netns.ErrNotFound) {
		return Result{}, fmt.Errorf("pod %s/%s: %w", s.PodNamespace, s.PodName, ErrNotAttached)
	}
	if err != nil {
		return Result{}, fmt.Errorf("pod %s/%s: %w", s.PodNamespace, s.PodName, err)
	}
	defer func() { _ = pod.Close() }()
	lo, err := pod.LinkByName("lo")
	if err != nil {
		return Result{}, fmt.Errorf("pod %s/%s: %w", s.PodNamespace, s.PodName, err)
	}
	if !lo.Up {
		return Result{}, fmt.Errorf("pod %s/%s: %w", s.PodNamespace, s.PodName, ErrNotAttached)
	}
	return Result{}, nil
}

func (noneDriver) Detach(context.Context, Sandbox) error { return nil }

func (noneDriver) Keep(context.Context, []string) error { return nil }
