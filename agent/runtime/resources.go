package runtime

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"lighter.dev/lighter/agent/cgroup"
)

// The constants of the kernel's CPU controllers as Kubernetes uses them.
const (
	cpuPeriod   = 100_000 // microseconds
	minQuota    = 1_000
	minShares   = 2
	maxShares   = 262_144
	sharesAtCPU = 1024
)

// cpuShares is the weight of a CPU request.
func cpuShares(request *resource.Quantity) uint64 {
	shares := request.MilliValue() * sharesAtCPU / 1000
	return uint64(min(max(shares, minShares), maxShares))
}

// cpuQuota is the run time per cpuPeriod that a CPU limit allows; 0: no limit.
func cpuQuota(limit *resource.Quantity) int64 {
	if limit.IsZero() {
		return 0
	}
	return max(limit.MilliValue()*cpuPeriod/1000, minQuota)
}

// PodCgroup makes a pod's cgroup and sets its limits. path is relative to
// Config.CgroupRoot. limits may be nil: no limit but the containers' own. It may
// be called again, with other limits too.
func (e *Engine) PodCgroup(_ context.Context, path string, limits *corev1.ResourceRequirements) error {
	full := e.cgroups.Path(path)
	if err := e.cgroups.Create(full); err != nil {
		return fmt.Errorf("pod cgroup %s: %w", path, err)
	}
	if limits == nil {
		return nil
	}
	l := cgroup.Limits{
		CPUShares: cpuShares(limits.Requests.Cpu()),
		Memory:    limits.Limits.Memory().Value(),
	}
	if quota := cpuQuota(limits.Limits.Cpu()); quota > 0 {
		l.CPUQuota, l.CPUPeriod = quota, cpuPeriod
	}
	if err := e.cgroups.Limit(full, l); err != nil {
		return fmt.Errorf("pod cgroup %s: %w", path, err)
	}
	return nil
}

// RemovePodCgroup kills what is left in a pod's cgroup and removes it; it is
// well if there is none.
func (e *Engine) RemovePodCgroup(ctx context.Context, path string) error {
	full := e.cgroups.Path(path)
	if err := e.cgroups.Kill(full); err != nil {
		return fmt.Errorf("pod cgroup %s: %w", path, err)
	}
	if err := e.cgroups.Remove(ctx, full); err != nil {
		return fmt.Errorf("pod cgroup %s: %w", path, err)
	}
	return nil
}

// Update changes the limits of a container in place (pod resize).
func (e *Engine) Update(ctx context.Context, id string, want corev1.ResourceRequirements) error {
	c, err := e.lookup(id)
	if err != nil {
		return err
	}
	defer c.mu.Unlock()
	spec := c.spec
	spec.Container = spec.Container.DeepCopy()
	spec.Container.Resources = want
	raw, err := json.Marshal(e.resources(&spec))
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, c.oci.path, "--root", e.ociRoot(), "update", "--resources", "-", id)
	cmd.Stdin = bytes.NewReader(raw)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("update container %s: %s: %w", id, runtimeMessage(string(out)), err)
	}
	c.spec = spec
	return writeJSON(e.stateDir(id)+"/"+specFile, &c.spec)
}

// resources translates a container's requests and limits to the OCI spec.
func (e *Engine) resources(spec *ContainerSpec) *specs.LinuxResources {
	want := spec.Container.Resources
	request := want.Requests.Cpu()
	if _, asked := want.Requests[corev1.ResourceCPU]; !asked {
		request = want.Limits.Cpu()
	}
	shares := cpuShares(request)
	out := &specs.LinuxResources{CPU: &specs.LinuxCPU{Shares: &shares, Cpus: spec.CPUSet}}
	if quota := cpuQuota(want.Limits.Cpu()); quota > 0 {
		period := uint64(cpuPeriod)
		out.CPU.Quota, out.CPU.Period = &quota, &period
	}
	if limit := want.Limits.Memory().Value(); limit > 0 {
		out.Memory = &specs.LinuxMemory{Limit: &limit}
		// Equal to the limit means: no swap, as Kubernetes wants by default.
		if e.canLimitSwap() {
			out.Memory.Swap = &limit
		}
	}
	if spec.PIDsLimit > 0 {
		limit := spec.PIDsLimit
		out.Pids = &specs.LinuxPids{Limit: &limit}
	}
	out.HugepageLimits = e.hugepages(want.Limits)
	if e.cgroups.Mode() == cgroup.Unified {
		// All of a container dies of an OOM, not one process of it (KEP-1698).
		out.Unified = map[string]string{"memory.oom.group": "1"}
	}
	return out
}

func (e *Engine) canLimitSwap() bool {
	if e.cgroups.Mode() == cgroup.Unified {
		return e.cgroups.HasFile("memory", e.conmonCgroup(), "memory.swap.max")
	}
	return e.cgroups.HasFile("memory", e.conmonCgroup(), "memory.memsw.limit_in_bytes")
}

// hugepages bounds every page size, to nothing if it is not asked for.
func (e *Engine) hugepages(limits corev1.ResourceList) []specs.LinuxHugepageLimit {
	if !e.cgroups.Has("hugetlb") {
		return nil
	}
	sizes, err := os.ReadDir("/sys/kernel/mm/hugepages")
	if err != nil {
		return nil
	}
	var out []specs.LinuxHugepageLimit
	for _, entry := range sizes {
		// hugepages-2048kB
		text, ok := strings.CutSuffix(strings.TrimPrefix(entry.Name(), "hugepages-"), "kB")
		size, err := resource.ParseQuantity(text + "Ki")
		if !ok || err != nil {
			continue
		}
		limit := limits[corev1.ResourceName(corev1.ResourceHugePagesPrefix+size.String())]
		out = append(out, specs.LinuxHugepageLimit{
			Pagesize: strings.TrimSuffix(size.String(), "i") + "B",
			Limit:    uint64(limit.Value()),
		})
	}
	return out
}
