package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Daemons decides what runs on the hosts and when that is ready.
type Daemons interface {
	// Prepare returns the command for a host, and may write its configuration
	// below etc, the host's own /etc. For an agent it is called when the
	// server is ready.
	Prepare(ctx context.Context, c *Cluster, host Host, etc string) (argv []string, err error)
	// ServerReady returns when agents may join. exited is closed if the
	// server's daemon ends first; it is nil when that was started earlier.
	ServerReady(ctx context.Context, c *Cluster, exited <-chan struct{}) error
	// AllReady returns when every host is ready for work.
	AllReady(ctx context.Context, c *Cluster, report Report) error
}

// Report tells the user about one step. Implementations add the time.
type Report func(format string, args ...any)

// Up brings a cluster to what spec asks for: it makes what is missing, starts
// what does not run, leaves alone what does, and waits until all is ready.
func Up(ctx context.Context, spec Spec, daemons Daemons, report Report) (*Cluster, error) {
	if err := needRoot(); err != nil {
		return nil, err
	}
	if err := spec.check(); err != nil {
		return nil, err
	}
	if spec.Dir == "" {
		spec.Dir = DefaultDir(spec.Name)
		if indexed, err := os.Readlink(indexLink(spec.Name)); err == nil {
			spec.Dir = indexed
		}
	}
	dir, err := filepath.Abs(spec.Dir)
	if err != nil {
		return nil, err
	}
	spec.Dir = dir
	unlock, err := lock(spec.Dir)
	if err != nil {
		return nil, err
	}
	defer unlock()
	cluster, err := wanted(spec)
	if err != nil {
		return nil, err
	}
	if err := cluster.save(); err != nil {
		return nil, err
	}
	if err := cluster.ensurePinDir(); err != nil {
		return nil, err
	}
	if err := cluster.ensureSwitch(); err != nil {
		return nil, err
	}
	report("network %s, the machine is %s", cluster.Subnet, cluster.Gateway())
	for _, host := range cluster.Hosts {
		if err := cluster.ensureHost(ctx, host, daemons, report); err != nil {
			return cluster, err
		}
	}
	return cluster, daemons.AllReady(ctx, cluster, report)
}

// wanted loads the cluster, if there is one, and plans it.
func wanted(spec Spec) (*Cluster, error) {
	have, err := Load(spec.Name, spec.Dir)
	if err != nil && !errors.Is(err, ErrNoCluster) {
		return nil, err
	}
	if have == nil {
		if err := onlyOurs(spec.Dir); err != nil {
			return nil, err
		}
	}
	taken, err := takenPrefixes()
	if err != nil {
		return nil, err
	}
	others, err := List()
	if err != nil {
		return nil, err
	}
	for _, other := range others {
		if other.Name == spec.Name && other.Dir != spec.Dir {
			return nil, fmt.Errorf("a cluster %q runs with --dir %s: take it down first or choose another --name", other.Name, other.Dir)
		}
		taken = append(taken, other.Subnet)
	}
	return plan(spec, have, taken)
}

// onlyOurs refuses a directory with strange content: "down" would remove it.
func onlyOurs(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if entry.Name() != "lock" {
			return fmt.Errorf("--dir %s is not empty (%s) and holds no cluster: choose another", dir, entry.Name())
		}
	}
	return nil
}

// ensureHost boots a host that is off and starts a daemon that does not run.
func (c *Cluster) ensureHost(ctx context.Context, host Host, daemons Daemons, report Report) error {
	if !c.booted(host.Name) {
		if err := c.boot(host); err != nil {
			return err
		}
	}
	running, err := c.daemonPIDs(host.Name)
	if err != nil {
		return err
	}
	var exited <-chan struct{}
	if len(running) == 0 {
		argv, err := daemons.Prepare(ctx, c, host, filepath.Join(c.HostDir(host.Name), "etc"))
		if err != nil {
			return fmt.Errorf("%s: %w", host.Name, err)
		}
		cmd, err := c.startDaemon(host.Name, argv)
		if err != nil {
			return err
		}
		exited = reap(cmd)
		report("%s (%s) started as %s", host.Name, host.IP, host.Role)
	}
	if host.Role != RoleServer {
		return nil
	}
	if err := daemons.ServerReady(ctx, c, exited); err != nil {
		return fmt.Errorf("%s: %w\n%s", host.Name, err, c.logTail(host.Name))
	}
	if exited != nil {
		report("%s: API ready at https://%s:6443", host.Name, host.IP)
	}
	return nil
}

// reap waits for our child in the background, for as long as we run ourselves.
func reap(cmd *exec.Cmd) <-chan struct{} {
	exited := make(chan struct{})
	go func() {
		defer close(exited)
		_ = cmd.Wait() // the log file tells why
	}()
	return exited
}

// logTail is the end of a daemon's log, for error messages.
func (c *Cluster) logTail(host string) string {
	content, err := os.ReadFile(c.LogFile(host))
	if err != nil {
		return ""
	}
	if len(content) > 2000 {
		content = content[len(content)-2000:]
	}
	return fmt.Sprintf("the end of %s:\n%s", c.LogFile(host), content)
}
