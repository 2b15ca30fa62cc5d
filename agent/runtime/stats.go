package runtime

import (
	"context"
	"time"

	"lighter.dev/lighter/agent/cgroup"
)

// Stats is the usage of a container or a pod at one time.
type Stats struct {
	Time time.Time
	cgroup.Stats
}

// Stats measures a container; errdefs.ErrNotFound if there is none.
func (e *Engine) Stats(_ context.Context, id string) (Stats, error) {
	c, err := e.lookup(id)
	if err != nil {
		return Stats{}, err
	}
	path := e.containerCgroup(&c.spec)
	c.mu.Unlock()
	return e.measure(path)
}

// PodStats measures a pod by its cgroup's path, relative to Config.CgroupRoot.
func (e *Engine) PodStats(_ context.Context, path string) (Stats, error) {
	return e.measure(e.cgroups.Path(path))
}

func (e *Engine) measure(path string) (Stats, error) {
	now := time.Now()
	usage, err := e.cgroups.Stats(path)
	return Stats{Time: now, Stats: usage}, err
}
