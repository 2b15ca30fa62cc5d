package build

import (
	"errors"
	"fmt"
	"math"

	"lighter.dev/lighter/agent/cgroup"
)

// limitSteps bounds the cgroup above all RUN steps, so that builds cannot take a
// host's memory and CPUs from its pods. Without limits it takes those of an
// earlier configuration back, as the cgroup outlives the agent.
func limitSteps(cfg Config) error {
	asked := cfg.Memory > 0 || cfg.MilliCPUs > 0
	if cfg.CgroupParent == "" {
		if asked {
			return errors.New("limits of builds need a cgroup of their own")
		}
		return nil
	}
	limits := cgroup.Limits{Memory: math.MaxInt64, CPUQuota: -1}
	const period = 100_000 // microseconds, the kernel's default
	if cfg.Memory > 0 {
		limits.Memory = cfg.Memory
	}
	if cfg.MilliCPUs > 0 {
		limits.CPUQuota, limits.CPUPeriod = cfg.MilliCPUs*period/1000, period
	}
	tree, err := cgroup.New(cfg.CgroupParent)
	if err == nil {
		err = tree.Create(cfg.CgroupParent)
	}
	if err == nil {
		err = tree.Limit(cfg.CgroupParent, limits)
	}
	if err != nil && asked {
		return fmt.Errorf("limit build steps: %w", err)
	}
	return nil // a host without these controllers has no limits to take back
}
