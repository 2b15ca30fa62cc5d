package local

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// powerOff ends a host as a power loss does: first nobody hears of it any more,
// then every process is killed, its daemons first so that none of them can
// report the deaths of the others, and its memory (namespaces, /run, cgroups)
// is gone. What it wrote to /var and /etc stays. Repeating it is fine.
func (c *Cluster) powerOff(host string) error {
	if err := c.unplug(host); err != nil {
		return fmt.Errorf("unplug %s: %w", host, err)
	}
	daemons, err := cgroupPIDs(filepath.Join(c.CgroupPath(host), "daemon"))
	if err != nil {
		return err
	}
	if err := killAll(daemons); err != nil {
		return fmt.Errorf("kill the daemon of %s: %w", host, err)
	}
	// A process may fork while we read the list: again until there is none.
	for {
		pids, err := c.pids(host)
		if err != nil {
			return err
		}
		if len(pids) == 0 {
			break
		}
		if err := killAll(pids); err != nil {
			return fmt.Errorf("kill the processes of %s: %w", host, err)
		}
	}
	var errs []error
	for _, kind := range []string{"mnt", "uts", "net"} {
		errs = append(errs, unpin(c.pin(host, kind)))
	}
	errs = append(errs, removeCgroup(c.CgroupPath(host)))
	return errors.Join(errs...)
}

// pids finds every process of a host: in its cgroups, where daemons and
// containers are, or in its namespaces, for whoever left the cgroups.
func (c *Cluster) pids(host string) (map[int]bool, error) {
	pids, err := cgroupPIDs(c.CgroupPath(host))
	if err != nil {
		return nil, err
	}
	mnt, hasMnt := pinnedInode(c.pin(host, "mnt"))
	net, hasNet := pinnedInode(c.pin(host, "net"))
	if !hasMnt && !hasNet {
		return pids, nil
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		if hasMnt && namespaceOf(pid, "mnt") == mnt || hasNet && namespaceOf(pid, "net") == net {
			pids[pid] = true
		}
	}
	return pids, nil
}

// namespaceOf is the inode of a process's namespace; 0 if it is gone.
func namespaceOf(pid int, kind string) uint64 {
	var st unix.Stat_t
	if unix.Stat(fmt.Sprintf("/proc/%d/ns/%s", pid, kind), &st) != nil {
		return 0
	}
	return st.Ino
}

// killAll sends SIGKILL to all and then waits until they are dead.
func killAll(pids map[int]bool) error { return signalAll(pids, unix.SIGKILL, 10*time.Second) }

// signalAll sends a signal to all pids and waits for each to end. Descriptors
// of processes (pidfd_open(2)) are taken first, so that neither signal nor wait
// can hit a process that got an old number.
func signalAll(pids map[int]bool, signal unix.Signal, timeout time.Duration) error {
	var fds []unix.PollFd
	defer func() {
		for _, fd := range fds {
			unix.Close(int(fd.Fd))
		}
	}()
	for pid := range pids {
		fd, err := unix.PidfdOpen(pid, 0)
		if errors.Is(err, unix.ESRCH) {
			continue
		} else if err != nil {
			return fmt.Errorf("process %d: %w", pid, err)
		}
		fds = append(fds, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
		if err := unix.PidfdSendSignal(fd, signal, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("signal process %d: %w", pid, err)
		}
	}
	deadline := time.Now().Add(timeout)
	for i := range fds {
		if err := awaitExit(fds[i:i+1], deadline); err != nil {
			return err
		}
	}
	return nil
}

func awaitExit(fd []unix.PollFd, deadline time.Time) error {
	for {
		left := max(time.Until(deadline), 0)
		n, err := unix.Poll(fd, int(left.Milliseconds())+1)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return err
		case n > 0:
			return nil
		case left == 0:
			return errStillRuns
		}
	}
}

// errStillRuns: a process outlived the time it had. After SIGKILL that means a
// process that the kernel cannot end, e.g. one that waits for a dead disk.
var errStillRuns = errors.New("a process is still running")
