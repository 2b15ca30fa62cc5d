package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/continuity"
)

// Daemons decides what runs on the hosts and when that is ready.
type Daemons interface {
	// NeedsServer tells whether a host can start only when a server is ready: all
	// but the first server need one until they have joined.
	NeedsServer(c *Cluster, host Host) bool
	// Prepare says how a host's daemon is started.
	Prepare(ctx context.Context, c *Cluster, host Host) (Command, error)
	// ServerReady returns when others may join. exited is closed if a
	// server's daemon ends first; it is nil when all were started earlier.
	ServerReady(ctx context.Context, c *Cluster, exited <-chan struct{}) error
	// AllReady returns when every host is ready for work.
	AllReady(ctx context.Context, c *Cluster, report Report) error
}

// Command starts a daemon.
type Command struct {
	Argv []string
	// Files are its settings by their path on the host. Root alone may read them.
	Files map[string][]byte
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
	if n := len(cluster.Servers()); n%2 == 0 {
		report("note: of %d servers %d are needed, so this cluster survives the loss of no more servers than one with %d", n, n/2+1, n-1)
	}
	if err := cluster.ensureHosts(ctx, cluster.Hosts, daemons, report); err != nil {
		return cluster, err
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

// onlyOurs refuses a directory with strange content: "down" would remove it. An
// "up" that was killed may have left the file in which it wrote its state.
func onlyOurs(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if name := entry.Name(); name != "lock" && !strings.HasPrefix(name, unfinishedState) {
			return fmt.Errorf("--dir %s is not empty (%s) and holds no cluster: choose another", dir, name)
		}
	}
	return nil
}

// ensureHosts boots hosts that are off and starts daemons that do not run: those
// of servers at once, those that need a server when one lets them join.
func (c *Cluster) ensureHosts(ctx context.Context, hosts []Host, daemons Daemons, report Report) error {
	for _, host := range hosts {
		if !c.booted(host.Name) {
			if err := c.boot(host); err != nil {
				return err
			}
		}
	}
	var exited <-chan struct{}
	var first []Host
	for _, host := range hosts {
		if host.Role != RoleServer || daemons.NeedsServer(c, host) {
			continue
		}
		var err error
		if exited, err = c.ensureDaemon(ctx, host, daemons, report); err != nil {
			return err
		}
		first = append(first, host)
	}
	if len(first) > 0 {
		if err := c.awaitServers(ctx, first[0], exited, daemons, report); err != nil {
			return err
		}
	}
	for _, host := range hosts {
		if !slices.Contains(first, host) {
			if _, err := c.ensureDaemon(ctx, host, daemons, report); err != nil {
				return err
			}
		}
	}
	return nil
}

// awaitServers waits until the API is ready, if enough servers run for that.
func (c *Cluster) awaitServers(ctx context.Context, started Host, exited <-chan struct{}, daemons Daemons, report Report) error {
	running, all := 0, 0
	for _, host := range c.Servers() {
		if daemons.NeedsServer(c, host) {
			continue // it has no say yet
		}
		all++
		pids, err := c.daemonPIDs(host.Name)
		if err != nil {
			return err
		}
		if len(pids) > 0 {
			running++
		}
	}
	if running <= all/2 {
		report("%d of %d servers run, %d are needed: the API waits for them", running, all, all/2+1)
		return nil
	}
	if err := daemons.ServerReady(ctx, c, exited); err != nil {
		return fmt.Errorf("%s: %w\n%s", started.Name, err, c.logTail(started.Name))
	}
	report("the API is ready")
	return nil
}

// ensureDaemon starts the host's daemon unless it runs. The channel is closed
// when the daemon ends; it is nil if it ran before.
func (c *Cluster) ensureDaemon(ctx context.Context, host Host, daemons Daemons, report Report) (exited <-chan struct{}, err error) {
	running, err := c.daemonPIDs(host.Name)
	if err != nil || len(running) > 0 {
		return nil, err
	}
	command, err := daemons.Prepare(ctx, c, host)
	if err == nil {
		err = c.writeFiles(host.Name, command.Files)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", host.Name, err)
	}
	cmd, err := c.startDaemon(host.Name, command.Argv)
	if err != nil {
		return nil, err
	}
	report("%s (%s): %s started", host.Name, host.IP, host.Role)
	return reap(cmd), nil
}

// writeFiles writes files of a host from the inside: where its /etc lies on the disk,
// the overlay file system above would not notice, and show the old ones.
func (c *Cluster) writeFiles(host string, files map[string][]byte) error {
	return inThread(func() error {
		if err := c.enter(host); err != nil {
			return err
		}
		var errs []error
		for path, content := range files {
			errs = append(errs, os.MkdirAll(filepath.Dir(path), 0o755), continuity.AtomicWriteFile(path, content, 0o600))
		}
		return errors.Join(errs...)
	})
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
