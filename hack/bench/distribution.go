package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	distributionHosts  = 3
	distributionLayers = 6
	distributionLayer  = 50 << 20
)

// measureDistribution has three hosts want an image of 300 MB at the same moment that
// none of them has: how often it leaves the registry, and how much longer the last
// host takes than the first.
func measureDistribution(ctx context.Context, b *bench) (err error) {
	if _, err := b.fresh(ctx, distributionHosts); err != nil {
		return err
	}
	dir, err := b.tempDir()
	if err != nil {
		return err
	}
	source, err := newRegistry(ctx, b.cluster.Gateway().String(), dir, distributionLayers, distributionLayer)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, source.close()) }()
	if err := b.configure(ctx, fmt.Sprintf("insecure-registry: [%s]\n", source.host)); err != nil {
		return err
	}
	w, err := b.watch(ctx)
	if err != nil {
		return err
	}
	defer w.stop()
	start := time.Now()
	for _, host := range b.cluster.Hosts {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "large-" + host.Name}, Spec: podSpec("")}
		pod.Spec.NodeName, pod.Spec.Containers[0].Image = host.Name, source.ref()
		if _, err := b.client.CoreV1().Pods(namespace).Create(ctx, pod, metav1.CreateOptions{}); err != nil {
			return err
		}
	}
	var took []float64
	for i := range b.cluster.Hosts {
		if err := w.until(ctx, "the pods with the large image run", func() bool { return w.running() > i }); err != nil {
			return err
		}
		took = append(took, time.Since(start).Seconds())
	}
	megabytes := func(bytes int64) float64 { return float64(bytes) / 1e6 }
	sent := source.sent.Load()
	b.results.set(egress, float64(sent)/float64(source.size), "%.0f MB left the registry for an image of %.0f MB on %d hosts at once", megabytes(sent), megabytes(source.size), len(took))
	b.results.set(lastPull, took[len(took)-1]/took[0], "%.1f s after %.1f s, all on this machine's CPUs and disk", took[len(took)-1], took[0])
	// Not even its settings are of use to others.
	return b.down()
}

// configure gives the daemons of all hosts settings, and starts them again.
func (b *bench) configure(ctx context.Context, settings string) error {
	dir, err := b.tempDir()
	if err != nil {
		return err
	}
	path := filepath.Join(dir, "agent.yaml")
	if err := os.WriteFile(path, []byte(settings), 0o600); err != nil {
		return err
	}
	var hosts []string
	for _, host := range b.cluster.Hosts {
		hosts = append(hosts, host.Name)
	}
	for _, args := range [][]string{append([]string{"kill", "--daemon"}, hosts...), {"up", "--config", path}} {
		if _, err := b.local(ctx, args...); err != nil {
			return err
		}
	}
	return nil
}
