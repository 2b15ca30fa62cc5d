package containers

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/docker/go-units"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cli-runtime/pkg/printers"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
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

// sample asks the hosts of the pods, each once.
func (c *Cluster) sample(ctx context.Context, names []string) ([]usage, error) {
	pods, err := c.statsPods(ctx, names)
	if err != nil {
		return nil, err
	}
	var errs []error
	var out []usage
	byHost := map[string][]corev1.Pod{}
	for _, pod := range pods {
		byHost[pod.Spec.NodeName] = append(byHost[pod.Spec.NodeName], pod)
	}
	for host, pods := range byHost {
		if host == "" {
			continue
		}
		summary, err := c.summary(ctx, host)
		if err != nil {
			errs = append(errs, fmt.Errorf("usage on host %s: %w", host, err))
			continue
		}
		for i := range pods {
			out = append(out, usageOf(&pods[i], summary)...)
		}
	}
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

func (c *Cluster) summary(ctx context.Context, host string) (*statsapi.Summary, error) {
	raw, err := c.Kube.CoreV1().RESTClient().Get().Resource("nodes").Name(host).SubResource("proxy").Suffix("stats/summary").DoRaw(ctx)
	if err != nil {
		return nil, err
	}
	out := &statsapi.Summary{}
	return out, json.Unmarshal(raw, out)
}

// usageOf picks the pod's containers that run.
func usageOf(pod *corev1.Pod, summary *statsapi.Summary) []usage {
	var out []usage
	for _, p := range summary.Pods {
		if p.PodRef.UID != string(pod.UID) {
			continue
		}
		for _, s := range p.Containers {
			if s.CPU == nil || s.CPU.UsageCoreNanoSeconds == nil || s.Memory == nil || s.Memory.WorkingSetBytes == nil {
				continue
			}
			u := usage{
				name: nameOf(pod), host: pod.Spec.NodeName, at: s.CPU.Time.Time,
				cpu: time.Duration(*s.CPU.UsageCoreNanoSeconds), memory: *s.Memory.WorkingSetBytes,
			}
			if len(pod.Spec.Containers) > 1 {
				u.name += "/" + s.Name
			}
			for i := range pod.Spec.Containers {
				if pod.Spec.Containers[i].Name == s.Name {
					u.limit = uint64(pod.Spec.Containers[i].Resources.Limits.Memory().Value())
				}
			}
			out = append(out, u)
		}
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
