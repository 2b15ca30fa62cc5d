package volume

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"
)

// Teardown unmounts and removes everything of a pod, also when Setup came only
// half way or never ran. It may be repeated.
func (m *Manager) Teardown(_ context.Context, uid types.UID) error {
	m.tokens.drop(uid)
	return m.remove(m.PodDir(uid))
}

// ReleaseContainer drops the subPath mounts of one container.
func (m *Manager) ReleaseContainer(uid types.UID, container string) error {
	return m.remove(filepath.Join(m.PodDir(uid), "subpaths", container))
}

// Sweep removes the folders of all pods that keep does not know: what a crash
// left behind.
func (m *Manager) Sweep(ctx context.Context, keep func(types.UID) bool) error {
	entries, err := os.ReadDir(m.cfg.Root)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		uid := types.UID(e.Name())
		if keep(uid) {
			continue
		}
		m.cfg.Log.Info("Removing leftover volumes", "pod", uid)
		errs = append(errs, m.Teardown(ctx, uid))
	}
	return errors.Join(errs...)
}

// remove unmounts all below dir, then removes dir. If a mount stays, nothing
// below it is deleted: RemoveAll through a bind mount would eat the host's files.
func (m *Manager) remove(dir string) error {
	if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := unmountAll(dir); err != nil {
		return err
	}
	left, err := mountsBelow(dir)
	if err != nil {
		return err
	}
	if len(left) > 0 {
		return fmt.Errorf("still mounted: %s", strings.Join(left, ", "))
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove volumes: %w", err)
	}
	return nil
}

// unmountAll unmounts dir and all below it, the youngest first.
func unmountAll(dir string) error {
	mounts, err := mountsBelow(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, path := range slices.Backward(mounts) {
		err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, fmt.Errorf("unmount %s: %w", path, err))
		}
	}
	return errors.Join(errs...)
}

// mountsBelow reads /proc/self/mountinfo, which lists mounts in order of age.
func mountsBelow(dir string) ([]string, error) {
	target, err := filepath.EvalSymlinks(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out []string
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 5 {
			continue
		}
		path := unescape.Replace(fields[4])
		if path == target || strings.HasPrefix(path, target+"/") {
			out = append(out, path)
		}
	}
	return out, lines.Err()
}

// unescape undoes the octal escapes of mountinfo, see proc(5).
var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
