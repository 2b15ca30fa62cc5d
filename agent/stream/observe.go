package stream

import (
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"lighter.dev/lighter/agent/runtime"
)

func (h *handler) servePods(w http.ResponseWriter, _ *http.Request) {
	list := corev1.PodList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "PodList"}}
	for _, pod := range h.cfg.Pods.List() {
		list.Items = append(list.Items, *pod)
	}
	writeJSON(w, list)
}

// serveMetrics writes the Prometheus text format.
func (h *handler) serveMetrics(w http.ResponseWriter, _ *http.Request) {
	phases, states := map[string]int{}, map[string]int{}
	for _, pod := range h.cfg.Pods.List() {
		phases[string(pod.Status.Phase)]++
		for _, c := range pod.Status.ContainerStatuses {
			switch {
			case c.State.Running != nil:
				states["running"]++
			case c.State.Terminated != nil:
				states["terminated"]++
			default:
				states["waiting"]++
			}
		}
	}
	w.Header().Set("Content-Type", "text/plain; version=0.0.4")
	metric := func(name, help, kind string) {
		_, _ = fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
	}
	metric("process_resident_memory_bytes", "Resident memory of the agent's process.", "gauge")
	_, _ = fmt.Fprintf(w, "process_resident_memory_bytes %d\n", residentMemory())
	metric("lighter_agent_pods", "Pods on this node by phase.", "gauge")
	for _, phase := range []corev1.PodPhase{corev1.PodPending, corev1.PodRunning, corev1.PodSucceeded, corev1.PodFailed} {
		_, _ = fmt.Fprintf(w, "lighter_agent_pods{phase=%q} %d\n", phase, phases[string(phase)])
	}
	metric("lighter_agent_containers", "Containers on this node by state.", "gauge")
	for _, state := range []string{"running", "terminated", "waiting"} {
		_, _ = fmt.Fprintf(w, "lighter_agent_containers{state=%q} %d\n", state, states[state])
	}
}

// residentMemory is in bytes.
func residentMemory() int64 {
	raw, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(raw))
	if len(fields) < 2 {
		return 0
	}
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	if err != nil {
		return 0
	}
	return pages * int64(os.Getpagesize())
}

// serveSummary is the part of the kubelet's summary that cgroups know.
func (h *handler) serveSummary(w http.ResponseWriter, r *http.Request) {
	summary := statsapi.Summary{Node: statsapi.NodeStats{NodeName: h.cfg.NodeName}, Pods: []statsapi.PodStats{}}
	for _, object := range h.cfg.Pods.List() {
		pod, err := h.cfg.Pods.Lookup(object.Namespace, object.Name, string(object.UID))
		if err != nil {
			continue // gone since List
		}
		out := statsapi.PodStats{PodRef: statsapi.PodReference{Name: pod.Name, Namespace: pod.Namespace, UID: pod.UID}}
		if object.Status.StartTime != nil {
			out.StartTime = *object.Status.StartTime
		}
		if usage, err := h.cfg.Runtime.PodStats(r.Context(), pod.CgroupParent); err == nil {
			out.CPU, out.Memory = summarize(usage)
		}
		for _, c := range pod.Containers {
			if !c.Running {
				continue
			}
			usage, err := h.cfg.Runtime.Stats(r.Context(), c.ID)
			if err != nil {
				continue
			}
			stats := statsapi.ContainerStats{Name: c.Name}
			stats.CPU, stats.Memory = summarize(usage)
			out.Containers = append(out.Containers, stats)
		}
		summary.Pods = append(summary.Pods, out)
	}
	writeJSON(w, summary)
}

func summarize(s runtime.Stats) (*statsapi.CPUStats, *statsapi.MemoryStats) {
	at := metav1.NewTime(s.Time)
	cpu := uint64(s.CPU.Nanoseconds())
	return &statsapi.CPUStats{Time: at, UsageCoreNanoSeconds: &cpu},
		&statsapi.MemoryStats{Time: at, UsageBytes: &s.Memory, WorkingSetBytes: &s.WorkingSet, RSSBytes: &s.RSS}
}
