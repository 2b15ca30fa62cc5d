package containers

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/docker/go-units"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cli-runtime/pkg/printers"

	"lighter.dev/lighter/api/agentapi"
)

// statsInterval is the time over which the use of processors is measured.
const statsInterval = time.Second

// Stats prints what running containers use: once, or until ctx ends. Without
// names it is about all of the namespace.
func (c *Cluster) Stats(ctx context.Context, names []string, stream bool) error {
	before, err := c.sample(ctx, names)
	if err != nil {
		return err
	}
	tick := time.NewTicker(statsInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		now, err := c.sample(ctx, names)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		if err := c.printStats(before, now, stream); err != nil || !stream {
			return err
		}
		before = now
	}
}

// usage is one look at a container.
type usage struct {
	name, host string
	at         time.Time
	cpu        time.Duration
	memory     uint64
	limit      uint64 // 0 is none
}

// statsClients bounds how many pods are asked about at a time.
const statsClients = 8

// sample asks about each pod that has a host.
func (c *Cluster) sample(ctx context.Context, names []string) ([]usage, error) {
	pods, err := c.statsPods(ctx, names)
	if err != nil {
		return nil, err
	}
	each, errs := make([][]usage, len(pods)), make([]error, len(pods))
	var group errgroup.Group
	group.SetLimit(statsClients)
	for i := range pods {
		if pods[i].Spec.NodeName == "" {
			continue
		}
		group.Go(func() error {
			each[i], errs[i] = c.usageOf(ctx, &pods[i])
			return nil
		})
	}
	_ = group.Wait() // the errors are in errs: what one host does not say, others do
	out := slices.Concat(each...)
	slices.SortFunc(out, func(a, b usage) int { return cmp.Compare(a.name, b.name) })
	return out, errors.Join(errs...)
}

func (c *Cluster) statsPods(ctx context.Context, names []string) ([]corev1.Pod, error) {
	if len(names) == 0 {
		list, err := c.Kube.CoreV1().Pods(c.Namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			return nil, fmt.Errorf("list containers: %w", err)
		}
		return list.Items, nil
	}
	var out []corev1.Pod
	for _, name := range names {
		pod, err := c.find(ctx, name)
		if err != nil {
			return nil, err
		}
		out = append(out, *pod)
	}
	return out, nil
}

// usageOf asks about the pod's containers that run; none if it is gone by now.
func (c *Cluster) usageOf(ctx context.Context, pod *corev1.Pod) ([]usage, error) {
	agent, err := c.Containers(pod)
	if err != nil {
		return nil, err
	}
	stats, err := agent.Stats(ctx)
	if apierrors.IsNotFound(err) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("usage of container %s on host %s: %w", nameOf(pod), pod.Spec.NodeName, err)
	}
	return usages(pod, stats), nil
}

func usages(pod *corev1.Pod, stats []agentapi.ContainerUsage) []usage {
	var out []usage
	for _, s := range stats {
		u := usage{name: nameOf(pod), host: pod.Spec.NodeName, at: s.At, cpu: s.CPU, memory: s.Memory}
		if len(pod.Spec.Containers) > 1 {
			u.name += "/" + s.Container
		}
		for i := range pod.Spec.Containers {
			if pod.Spec.Containers[i].Name == s.Container {
				u.limit = uint64(pod.Spec.Containers[i].Resources.Limits.Memory().Value())
			}
		}
		out = append(out, u)
	}
	return out
}

// percentCPU is the use between two looks; 100 is one processor.
func percentCPU(before, now usage) float64 {
	took := now.at.Sub(before.at)
	if took <= 0 || now.cpu < before.cpu {
		return 0
	}
	return 100 * float64(now.cpu-before.cpu) / float64(took)
}

// clearScreen is ANSI's: home, erase below.
const clearScreen = "\x1b[H\x1b[J"

// printStats prints the table; on a terminal it replaces the one before.
func (c *Cluster) printStats(before, now []usage, stream bool) error {
	var page bytes.Buffer
	if stream && isTerminal(c.Out) {
		page.WriteString(clearScreen)
	}
	table := printers.GetNewTabWriter(&page)
	fmt.Fprintln(table, "CONTAINER\tCPU %\tMEM USAGE / LIMIT\tMEM %\tHOST")
	for _, u := range now {
		i := slices.IndexFunc(before, func(b usage) bool { return b.name == u.name })
		if i < 0 {
			continue // it has just begun
		}
		limit, part := "-", "-"
		if u.limit > 0 {
			limit, part = units.BytesSize(float64(u.limit)), fmt.Sprintf("%.2f%%", 100*float64(u.memory)/float64(u.limit))
		}
		fmt.Fprintf(table, "%s\t%.2f%%\t%s / %s\t%s\t%s\n", u.name, percentCPU(before[i], u), units.BytesSize(float64(u.memory)), limit, part, u.host)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	_, err := c.Out.Write(page.Bytes())
	return err
}
