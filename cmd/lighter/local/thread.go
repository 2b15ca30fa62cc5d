package local

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// inThread runs fn on an operating-system thread of its own, which ends with
// fn, so that fn may enter other namespaces and cgroups. Processes that fn
// starts inherit them.
func inThread(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// The first thread cannot end, and /proc/self describes it.
			// Keep it busy here while another one does the work.
			done <- inThread(fn)
			runtime.UnlockOSThread()
			return
		}
		done <- fn() // no unlock: the thread is tainted and has to die
	}()
	return <-done
}

// enter moves the calling thread into a host's namespaces. The root and working
// directory become those of the host.
func (c *Cluster) enter(host string) error {
	// setns(CLONE_NEWNS) refuses a thread that shares them with others.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	// The mount namespace comes last: it hides the pins.
	for _, ns := range []struct {
		kind string
		flag int
	}{{"net", unix.CLONE_NEWNET}, {"uts", unix.CLONE_NEWUTS}, {"mnt", unix.CLONE_NEWNS}} {
		if err := setns(c.pin(host, ns.kind), ns.flag); err != nil {
			return fmt.Errorf("host %s is not running (%w): 'lighter local start %s' starts it", host, err, host)
		}
	}
	return nil
}

func setns(path string, flag int) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	if err := unix.Setns(int(file.Fd()), flag); err != nil {
		return fmt.Errorf("enter %s: %w", path, err)
	}
	return nil
}

// inNet runs fn on a thread in the network namespace that path pins.
func inNet(path string, fn func() error) error {
	return inThread(func() error {
		if err := setns(path, unix.CLONE_NEWNET); err != nil {
			return err
		}
		return fn()
	})
}

// newNamespaces makes namespaces and pins them: pins maps a kind as in
// /proc/<pid>/ns to the file to pin it on. inside then runs in them.
func newNamespaces(flags int, pins map[string]string, inside func() error) error {
	ready, pinned := make(chan int, 1), make(chan error, 1)
	result := make(chan error, 1)
	go func() {
		result <- inThread(func() error {
			defer close(ready)
			if err := unix.Unshare(flags | unix.CLONE_FS); err != nil {
				return fmt.Errorf("make namespaces: %w", err)
			}
			ready <- unix.Gettid()
			if err := <-pinned; err != nil {
				return err
			}
			return inside()
		})
	}()
	if tid, ok := <-ready; ok {
		pinned <- pinAll(tid, pins)
	}
	return <-result
}

func pinAll(tid int, pins map[string]string) error {
	for kind, path := range pins {
		if err := unpin(path); err != nil { // left by an up that was killed
			return err
		}
		file, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o600)
		if err != nil {
			return err
		}
		file.Close()
		source := fmt.Sprintf("/proc/%d/task/%d/ns/%s", os.Getpid(), tid, kind)
		if err := unix.Mount(source, path, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("pin %s: %w", path, err)
		}
	}
	return nil
}

// unpin lets go of a namespace. The kernel destroys it with the last process in
// it. No pin is fine.
func unpin(path string) error {
	for unix.Unmount(path, unix.MNT_DETACH) == nil {
	}
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return err
	}
	return nil
}

// pinnedInode identifies the namespace that path pins; false if there is none.
func pinnedInode(path string) (uint64, bool) {
	var fs unix.Statfs_t
	var st unix.Stat_t
	if unix.Statfs(path, &fs) != nil || fs.Type != unix.NSFS_MAGIC || unix.Stat(path, &st) != nil {
		return 0, false
	}
	return st.Ino, true
}
