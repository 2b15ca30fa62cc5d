package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"
)

const (
	streamRuns    = 3
	streamSeconds = 2
)

// measureStream compares one TCP stream between pods on two hosts with one
// between the hosts themselves, by turns, so that both see the same machine.
// iperf3 runs in the pods' and in the hosts' network namespaces.
func measureStream(ctx context.Context, b *bench) error {
	w, err := b.spread(ctx)
	if err != nil {
		return err
	}
	defer w.stop()
	var pods, hosts [2]peer
	for i, host := range b.cluster.Hosts[1:3] {
		hosts[i] = peer{b.netns(host.Name), host.IP.String()}
		if pods[i], err = b.podPeer(w, host.Name); err != nil {
			return err
		}
	}
	var ratio, plain, overlay []float64
	for range streamRuns {
		h, err := iperf(ctx, hosts[0], hosts[1])
		if err != nil {
			return err
		}
		p, err := iperf(ctx, pods[0], pods[1])
		if err != nil {
			return err
		}
		ratio, plain, overlay = append(ratio, p/h), append(plain, h), append(overlay, p)
	}
	b.results.set(stream, median(ratio), "%.1f of %.1f Gbit/s, all on this machine's CPUs; median of %d", median(overlay), median(plain), streamRuns)
	return b.clear(ctx, w)
}

// peer is an end of a stream: the file of its network namespace, its address.
type peer struct{ netns, ip string }

// podPeer finds a pod on a host, and its namespace by a process of its container.
func (b *bench) podPeer(w *podWatch, host string) (peer, error) {
	all, err := processes(b.cluster.CgroupPath(host))
	if err != nil {
		return peer{}, err
	}
	for uid, pod := range w.pods {
		for _, p := range all {
			if pod.Spec.NodeName == host && p.name == "busybox" && strings.Contains(p.cgroups, uid) {
				return peer{fmt.Sprintf("/proc/%d/ns/net", p.pid), pod.Status.PodIP}, nil
			}
		}
	}
	return peer{}, fmt.Errorf("no process of a pod found on %s", host)
}

// iperf sends from one peer to the other and returns what arrives, in Gbit/s.
func iperf(ctx context.Context, from, to peer) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	server := exec.CommandContext(ctx, "nsenter", "--net="+to.netns, "iperf3", "--server", "--one-off", "--bind", to.ip, "--forceflush")
	stdout, err := server.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := server.Start(); err != nil {
		return 0, err
	}
	// Its first output says that it listens.
	if _, err := stdout.Read(make([]byte, 1)); err != nil {
		return 0, errors.Join(fmt.Errorf("iperf3 --server: %w", err), server.Wait())
	}
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		buffer := make([]byte, 4096)
		for {
			if _, err := stdout.Read(buffer); err != nil {
				return
			}
		}
	}()
	out, err := exec.CommandContext(ctx, "nsenter", "--net="+from.netns, "iperf3", "--client", to.ip, "--time", fmt.Sprint(streamSeconds), "--json").Output()
	if err != nil {
		cancel() // the server waits for a client
	}
	<-drained
	if waitErr := server.Wait(); err != nil || waitErr != nil {
		return 0, fmt.Errorf("iperf3 to %s: %w\n%s", to.ip, errors.Join(err, waitErr), out)
	}
	return parseIperf(out)
}

// parseIperf reads iperf3's JSON: Gbit/s as the receiver saw it.
func parseIperf(output []byte) (float64, error) {
	var report struct {
		End struct {
			Received struct {
				BitsPerSecond float64 `json:"bits_per_second"`
			} `json:"sum_received"`
		} `json:"end"`
	}
	if err := json.Unmarshal(output, &report); err != nil {
		return 0, fmt.Errorf("iperf3: %w", err)
	}
	if report.End.Received.BitsPerSecond <= 0 {
		return 0, fmt.Errorf("iperf3 received nothing:\n%s", output)
	}
	return report.End.Received.BitsPerSecond / 1e9, nil
}
