package main

import (
	"context"
	"fmt"
	"time"

	"lighter.dev/lighter/cmd/lighter/local"
)

const (
	// settle is how long a cluster has nothing to do before it counts as idle.
	settle = 20 * time.Second
	// manyPods are enough that what a single pod adds shows beside the garbage
	// collector's swings.
	manyPods = 50
)

func measureServerMemory(ctx context.Context, b *bench) error {
	return measureIdle(ctx, b, 1, local.RoleServer, memServer)
}

func measureAgentMemory(ctx context.Context, b *bench) error {
	return measureIdle(ctx, b, 3, local.RoleAgent, memAgent)
}

func measureIdle(ctx context.Context, b *bench, hosts int, role local.Role, id string) error {
	if err := b.need(ctx, hosts); err != nil {
		return err
	}
	if err := pause(ctx, settle); err != nil {
		return err
	}
	var each []float64
	for _, host := range b.cluster.Hosts {
		if host.Role != role {
			continue
		}
		mb, err := b.memory(host.Name, "lighter")
		if err != nil {
			return err
		}
		each = append(each, mb)
	}
	b.results.set(id, median(each), "RssAnon after %.0f s of nothing; no pods", settle.Seconds())
	return nil
}

// measureOverhead fills one host with pods and divides what it and the control
// plane take more by their number. What the containers themselves use is left out.
func measureOverhead(ctx context.Context, b *bench) error {
	if err := b.pods(ctx, 3); err != nil {
		return err
	}
	if err := pause(ctx, settle); err != nil {
		return err
	}
	host, server := b.cluster.Hosts[1].Name, b.cluster.Servers()[0].Name
	before, err := b.shares(host, server)
	if err != nil {
		return err
	}
	w, err := b.watch(ctx)
	if err != nil {
		return err
	}
	defer w.stop()
	if _, err := b.burst(ctx, w, manyPods, host); err != nil {
		return err
	}
	if err := pause(ctx, settle); err != nil {
		return err
	}
	after, err := b.shares(host, server)
	if err != nil {
		return err
	}
	if err := b.clear(ctx, w); err != nil {
		return err
	}
	perPod := func(i int) float64 { return (after[i] - before[i]) / manyPods }
	b.results.set(memPod, perPod(0)+perPod(1), "of %d pods: conmon %.2f, agent %+.2f; the server's process %+.2f besides",
		manyPods, perPod(0), perPod(1), perPod(2))
	return nil
}

// shares are the memory of a host's supervisors, of its agent, and of the server.
func (b *bench) shares(host, server string) (all [3]float64, err error) {
	if all[0], err = b.memory(host, "conmon"); err != nil {
		return all, err
	}
	if all[1], err = b.memory(host, "lighter"); err != nil {
		return all, err
	}
	all[2], err = b.memory(server, "lighter")
	return all, err
}

// memory sums RssAnon of a host's processes of that name, in MB.
func (b *bench) memory(host, program string) (float64, error) {
	all, err := processes(b.cluster.CgroupPath(host))
	if err != nil {
		return 0, err
	}
	sum, n := 0.0, 0
	for _, p := range all {
		if p.name == program {
			sum += p.rssAnon
			n++
		}
	}
	if n == 0 && program == "lighter" {
		return 0, fmt.Errorf("no process %s runs on %s", program, host)
	}
	return sum, nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
