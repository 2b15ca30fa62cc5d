package local

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/containerd/continuity"

	"golang.org/x/sys/unix"
)

// booted tells whether a host's namespaces exist.
func (c *Cluster) booted(host string) bool {
	for _, kind := range []string{"net", "uts", "mnt"} {
		if _, ok := pinnedInode(c.pin(host, kind)); !ok {
			return false
		}
	}
	return true
}

// boot makes a host's cgroup, namespaces, mounts and link: a machine that is
// switched on, with no process yet. What was left of an earlier life is cleared
// away first.
func (c *Cluster) boot(host Host) error {
	if err := c.powerOff(host.Name); err != nil {
		return err
	}
	if err := c.writeEtc(host); err != nil {
		return fmt.Errorf("prepare %s: %w", host.Name, err)
	}
	for _, leaf := range []string{"daemon", "exec"} {
		if err := makeCgroup(filepath.Join(c.CgroupPath(host.Name), leaf)); err != nil {
			return err
		}
	}
	pins := map[string]string{}
	for _, kind := range []string{"net", "uts", "mnt"} {
		pins[kind] = c.pin(host.Name, kind)
	}
	err := newNamespaces(unix.CLONE_NEWNET|unix.CLONE_NEWUTS|unix.CLONE_NEWNS, pins, func() error {
		if err := unix.Sethostname([]byte(host.Name)); err != nil {
			return fmt.Errorf("set the host name: %w", err)
		}
		return mountHost(c.HostDir(host.Name))
	})
	if err != nil {
		return fmt.Errorf("boot %s: %w", host.Name, err)
	}
	return c.plugIn(host)
}

// writeEtc writes the files in which a host differs from the machine. They
// land in the upper layer of its /etc.
func (c *Cluster) writeEtc(host Host) error {
	upper := filepath.Join(c.HostDir(host.Name), "etc")
	for _, dir := range []string{upper, filepath.Join(c.HostDir(host.Name), "etc.work"), filepath.Join(upper, "lighter")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	hosts := "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
	for _, h := range c.Hosts {
		hosts += fmt.Sprintf("%s\t%s\n", h.IP, h.Name)
	}
	// Often a link into /run, which is another one inside.
	resolv, err := os.ReadFile("/etc/resolv.conf")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return errors.Join(
		continuity.AtomicWriteFile(filepath.Join(upper, "hostname"), []byte(host.Name+"\n"), 0o644),
		continuity.AtomicWriteFile(filepath.Join(upper, "hosts"), []byte(hosts), 0o644),
		continuity.AtomicWriteFile(filepath.Join(upper, "resolv.conf"), resolv, 0o644),
	)
}

// mountHost turns the calling thread's new mount namespace, still a copy of the
// machine's, into that of a host whose lasting parts are in dir.
func mountHost(dir string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	// The copy holds the pins of all clusters: let go, or a "down" there would
	// leave their namespaces alive here.
	if err := unix.Unmount(RunRoot, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("let go of %s: %w", RunRoot, err)
	}
	if err := hideHybrid(); err != nil {
		return err
	}
	varDir := filepath.Join(dir, "var")
	for _, sub := range []string{"lib/lighter", "log/pods", "tmp", "cache", "spool"} {
		if err := os.MkdirAll(filepath.Join(varDir, sub), 0o755); err != nil {
			return err
		}
	}
	if err := os.Symlink("/run", filepath.Join(varDir, "run")); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	// Opened now, because the mounts may hide the way to it.
	varFile, err := os.Open(varDir)
	if err != nil {
		return err
	}
	defer varFile.Close()
	etc := fmt.Sprintf("lowerdir=/etc,upperdir=%s,workdir=%s", filepath.Join(dir, "etc"), filepath.Join(dir, "etc.work"))
	for _, m := range []struct {
		source, target, kind string
		flags                uintptr
		data                 string
	}{
		{"overlay", "/etc", "overlay", 0, etc},
		{fdPath(varFile), "/var", "", unix.MS_BIND, ""},
		{"run", "/run", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=755"},
	} {
		if err := unix.Mount(m.source, m.target, m.kind, m.flags, m.data); err != nil {
			return fmt.Errorf("mount %s: %w", m.target, err)
		}
	}
	return os.MkdirAll("/run/lock", 0o1777)
}

// hideHybrid takes an empty cgroup v2 tree that stands beside those of v1 out of
// the host's sight: crun, which is faster than runc, does not work with both.
func hideHybrid() error {
	trees, err := mountedHierarchies()
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(trees, func(h hierarchy) bool { return !h.v2 }) {
		return nil
	}
	for _, tree := range trees {
		if tree.v2 {
			if err := unix.Unmount(tree.mount, unix.MNT_DETACH); err != nil {
				return fmt.Errorf("hide %s: %w", tree.mount, err)
			}
		}
	}
	return nil
}

func fdPath(file *os.File) string { return fmt.Sprintf("/proc/thread-self/fd/%d", file.Fd()) }
