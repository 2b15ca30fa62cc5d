package main

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	replicas = 6
	cutFor   = 5 * time.Second
	// judge is how long after a partition an eviction would still be due to it.
	judge = 12 * time.Second
)

// spread runs a Deployment over three hosts and returns the watch of its pods, which
// the caller stops.
func (b *bench) spread(ctx context.Context) (w *podWatch, err error) {
	if err := b.pods(ctx, 3); err != nil {
		return nil, err
	}
	if w, err = b.watch(ctx); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			w.stop()
		}
	}()
	wanted := deployment("spread", replicas, "")
	wanted.Spec.Template.Spec.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{{
		MaxSkew: 1, TopologyKey: corev1.LabelHostname, WhenUnsatisfiable: corev1.ScheduleAnyway,
		LabelSelector: wanted.Spec.Selector,
	}}
	if _, err := b.client.AppsV1().Deployments(namespace).Create(ctx, wanted, metav1.CreateOptions{}); err != nil {
		return nil, err
	}
	return w, w.until(ctx, "the pods are Running", func() bool { return w.running() == replicas })
}

// measurePartition cuts an agent off from everybody for a while. Every pod has
// to be the same afterwards, none on its way out.
func measurePartition(ctx context.Context, b *bench) error {
	w, err := b.spread(ctx)
	if err != nil {
		return err
	}
	defer w.stop()
	host := b.cluster.Hosts[2].Name
	if w.on(host) == 0 {
		return fmt.Errorf("no pod runs on %s", host)
	}
	if _, err := b.local(ctx, "cut", host); err != nil {
		return err
	}
	pauseErr := pause(ctx, cutFor)
	if _, err := b.local(ctx, "heal"); err != nil {
		return err
	}
	if pauseErr != nil {
		return pauseErr
	}
	evicted := false
	watching, cancel := context.WithTimeout(ctx, judge)
	defer cancel()
	// Runs into its time limit unless a pod goes.
	_ = w.until(watching, "a pod is evicted", func() bool {
		evicted = w.doomed() > 0 || len(w.pods) != replicas
		return evicted
	})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	value := float64(yes)
	if evicted {
		value = 0
	}
	b.results.set(partition, value, "an agent cut off from all for %.0f s, pods watched for %.0f s more", cutFor.Seconds(), judge.Seconds())
	return b.clear(ctx, w)
}

// measureLostHost switches an agent off as a power loss does, until as many pods
// run elsewhere as before. The cluster is not usable afterwards.
func measureLostHost(ctx context.Context, b *bench) error {
	w, err := b.spread(ctx)
	if err != nil {
		return err
	}
	defer w.stop()
	host := b.cluster.Hosts[2].Name
	lost := w.on(host)
	if lost == 0 {
		return fmt.Errorf("no pod runs on %s", host)
	}
	start := time.Now()
	if _, err := b.local(ctx, "kill", host); err != nil {
		return err
	}
	err = w.until(ctx, "replacements are Running", func() bool { return w.on(host) == 0 && w.running() == replicas })
	if err != nil {
		return err
	}
	b.results.set(lostHost, time.Since(start).Seconds(), "power off → all %d pods Running elsewhere; %d were lost", replicas, lost)
	return b.down()
}
