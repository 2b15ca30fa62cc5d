package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Down removes a cluster with all its data. Processes, namespaces, links and
// cgroups go first; cluster.json goes last, so that Down can be repeated. Other
// files in the cluster's directory stay.
func (c *Cluster) Down() error {
	unlock, err := c.lock()
	if err != nil {
		return err
	}
	defer unlock()
	for _, host := range c.Hosts {
		if err := c.powerOff(host.Name); err != nil {
			return err
		}
	}
	if err := errors.Join(c.removeSwitch(), removeCgroup(filepath.Join(cgroupRoot, c.Name)), removeEmptyRoot()); err != nil {
		return err
	}
	if err := os.RemoveAll(filepath.Join(c.Dir, "hosts")); err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(c.Dir, ".tmp-*")) // of a process that was killed
	if err != nil {
		return err
	}
	for _, name := range []string{"kubeconfig", stateFile, "lock"} {
		files = append(files, filepath.Join(c.Dir, name))
	}
	for _, file := range files {
		if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	for _, dir := range []string{c.Dir, DataRoot} {
		if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTEMPTY) {
			return err
		}
	}
	return c.removePinDir()
}

// removeEmptyRoot removes the cgroup above all clusters, if this was the last.
func removeEmptyRoot() error {
	trees, err := mountedHierarchies()
	if err != nil {
		return err
	}
	for _, tree := range trees {
		err := os.Remove(filepath.Join(tree.mount, cgroupRoot))
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.ENOTEMPTY) {
			return err
		}
	}
	return nil
}

// Kill switches a host off as a power loss does.
func (c *Cluster) Kill(host string) error {
	return c.locked(host, func(h Host) error { return c.powerOff(h.Name) })
}

// KillDaemon sends SIGKILL to the host's lighter process alone: containers run on.
func (c *Cluster) KillDaemon(host string) error {
	return c.locked(host, func(h Host) error {
		pids, err := c.daemonPIDs(h.Name)
		if err != nil {
			return err
		}
		return killAll(pids)
	})
}

// Stop asks the host's daemon to end and then switches the host off. With
// daemonOnly the containers run on.
func (c *Cluster) Stop(host string, daemonOnly bool) error {
	return c.locked(host, func(h Host) error {
		pids, err := c.daemonPIDs(h.Name)
		if err != nil {
			return err
		}
		if err := signalAll(pids, unix.SIGTERM, 15*time.Second); err != nil {
			return fmt.Errorf("%s does not stop on SIGTERM within 15 s: %w; 'lighter local kill %s' ends it", h.Name, err, h.Name)
		}
		if daemonOnly {
			return nil
		}
		return c.powerOff(h.Name)
	})
}

// Start boots a host that is off, and starts its daemon if that does not run.
func (c *Cluster) Start(ctx context.Context, host string, daemons Daemons, report Report) error {
	return c.locked(host, func(h Host) error { return c.ensureHosts(ctx, []Host{h}, daemons, report) })
}

// CutLink breaks the network between two hosts, or around a if b is empty.
func (c *Cluster) CutLink(a, b string) error {
	if b != "" {
		if _, err := c.Host(b); err != nil {
			return err
		}
	}
	return c.locked(a, func(Host) error {
		if cut := (Cut{A: a, B: b}); !slices.Contains(c.Cuts, cut) {
			c.Cuts = append(c.Cuts, cut)
		}
		return errors.Join(c.save(), c.applyCuts())
	})
}

// Heal mends all cuts.
func (c *Cluster) Heal() error {
	unlock, err := c.lock()
	if err != nil {
		return err
	}
	defer unlock()
	c.Cuts = nil
	return errors.Join(c.save(), c.applyCuts())
}

// locked runs fn on a host under the cluster's lock, on a fresh copy of the state.
func (c *Cluster) locked(host string, fn func(Host) error) error {
	unlock, err := c.lock()
	if err != nil {
		return err
	}
	defer unlock()
	found, err := c.Host(host)
	if err != nil {
		return err
	}
	return fn(found)
}

// lock takes the lock and reads the state again: it may have changed meanwhile.
func (c *Cluster) lock() (unlock func(), err error) {
	if err := needRoot(); err != nil {
		return nil, err
	}
	unlock, err = lock(c.Dir)
	if err != nil {
		return nil, err
	}
	fresh, err := Load(c.Name, c.Dir)
	if err != nil {
		unlock()
		return nil, err
	}
	*c = *fresh
	return unlock, nil
}

// HostStatus is one line of "lighter local ls".
type HostStatus struct {
	Host
	State string // running, no daemon, off
	PIDs  int
}

// Status looks at every host.
func (c *Cluster) Status() ([]HostStatus, error) {
	var all []HostStatus
	for _, host := range c.Hosts {
		status := HostStatus{Host: host, State: "off"}
		if c.booted(host.Name) {
			daemon, err := c.daemonPIDs(host.Name)
			if err != nil {
				return nil, err
			}
			everything, err := c.pids(host.Name)
			if err != nil {
				return nil, err
			}
			status.State, status.PIDs = "running", len(everything)
			if len(daemon) == 0 {
				status.State = "no daemon"
			}
		}
		all = append(all, status)
	}
	return all, nil
}

func needRoot() error {
	if os.Geteuid() != 0 {
		return errors.New("local clusters need root: hosts are network and mount namespaces (try sudo)")
	}
	return nil
}
