package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// PinNamespaces makes the namespaces of a pod, or finds those that exist, and
// gives the paths by which containers and the network join them. With an IPC
// namespace comes the pod's /dev/shm. The network namespace is born with the
// loopback device down; raising it is the network's task.
func (e *Engine) PinNamespaces(_ context.Context, podUID, hostname string, want struct{ Net, IPC, UTS bool }) (Namespaces, error) {
	dir, err := e.podRunDir(podUID)
	if err != nil {
		return Namespaces{}, err
	}
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return Namespaces{}, err
	}
	var out Namespaces
	var missing []pin
	for _, p := range []pin{
		{"net", unix.CLONE_NEWNET, want.Net, &out.Net},
		{"ipc", unix.CLONE_NEWIPC, want.IPC, &out.IPC},
		{"uts", unix.CLONE_NEWUTS, want.UTS, &out.UTS},
	} {
		if !p.want {
			continue
		}
		*p.path = filepath.Join(dir, p.name)
		if !isNamespace(*p.path) {
			missing = append(missing, p)
		}
	}
	if want.IPC {
		if err := mountShm(filepath.Join(dir, "shm")); err != nil {
			return Namespaces{}, err
		}
	}
	if len(missing) == 0 {
		return out, nil
	}
	failed := make(chan error)
	go func() {
		// Never unlocked: a thread in another namespace must end with its goroutine.
		goruntime.LockOSThread()
		failed <- pinAll(missing, hostname)
	}()
	if err := <-failed; err != nil {
		return Namespaces{}, fmt.Errorf("pin the namespaces of pod %s: %w", podUID, err)
	}
	return out, nil
}

// pin is one namespace to make.
type pin struct {
	name string
	flag int
	want bool
	path *string
}

// pinAll runs on a thread of its own.
func pinAll(pins []pin, hostname string) error {
	flags := 0
	for _, p := range pins {
		flags |= p.flag
	}
	if err := unix.Unshare(flags); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	for _, p := range pins {
		if p.flag == unix.CLONE_NEWUTS && hostname != "" {
			if err := unix.Sethostname([]byte(hostname)); err != nil {
				return fmt.Errorf("set host name %q: %w", hostname, err)
			}
		}
		file, err := os.OpenFile(*p.path, os.O_CREATE|os.O_RDONLY, 0o444)
		if err != nil {
			return err
		}
		_ = file.Close()
		source := fmt.Sprintf("/proc/self/task/%d/ns/%s", unix.Gettid(), p.name)
		if err := unix.Mount(source, *p.path, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("bind %s: %w", *p.path, err)
		}
	}
	return nil
}

// UnpinNamespaces lets a pod's namespaces go; it is well if there are none.
func (e *Engine) UnpinNamespaces(_ context.Context, podUID string) error {
	dir, err := e.podRunDir(podUID)
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range []string{"net", "ipc", "uts", "shm"} {
		if err := unmountAll(filepath.Join(dir, name)); err != nil {
			errs = append(errs, err)
		}
	}
	if len(errs) == 0 {
		errs = append(errs, os.RemoveAll(dir))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("unpin the namespaces of pod %s: %w", podUID, err)
	}
	return nil
}

// PinnedPods lists the UIDs of the pods that have namespaces, so that a restarted
// agent can let go of those it no longer runs.
func (e *Engine) PinnedPods() ([]string, error) {
	entries, err := os.ReadDir(e.namespacesDir())
	if err != nil {
		return nil, err
	}
	uids := make([]string, 0, len(entries))
	for _, entry := range entries {
		uids = append(uids, entry.Name())
	}
	return uids, nil
}

func (e *Engine) podRunDir(podUID string) (string, error) {
	if podUID == "" || podUID[0] == '.' || strings.ContainsAny(podUID, "/\x00") {
		return "", fmt.Errorf("%q is no pod UID", podUID)
	}
	return filepath.Join(e.namespacesDir(), podUID), nil
}

// nsfsMagic is NSFS_MAGIC of linux/magic.h.
const nsfsMagic = 0x6e736673

func isNamespace(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && st.Type == nsfsMagic
}

// mountShm mounts the /dev/shm that the containers of a pod share, 64 MiB as
// Docker's and containerd's is.
func mountShm(dir string) error {
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return err
	}
	var own, parent unix.Stat_t
	if err := unix.Stat(dir, &own); err != nil {
		return err
	}
	if err := unix.Stat(filepath.Dir(dir), &parent); err != nil {
		return err
	}
	if own.Dev != parent.Dev {
		return nil
	}
	flags := uintptr(unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC)
	if err := unix.Mount("shm", dir, "tmpfs", flags, "mode=1777,size=65536k"); err != nil {
		return fmt.Errorf("mount a pod's /dev/shm: %w", err)
	}
	return nil
}
