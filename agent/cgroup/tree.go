package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Mode is how the host mounts its cgroups.
type Mode string

// The modes. Hybrid is v1 for resources and an additional v2 hierarchy.
const (
	Unified Mode = "unified"
	Legacy  Mode = "legacy"
	Hybrid  Mode = "hybrid"
)

// mountpoint is where distributions mount cgroup file systems.
const mountpoint = "/sys/fs/cgroup"

// Tree is the part of the cgroup file system that belongs to one agent.
type Tree struct {
	mode Mode
	root string
	// v1 maps a controller to its hierarchy's mount point ("name=" stripped).
	v1 map[string]string
	// v2 is the mount point of the unified hierarchy, "" if there is none.
	v2 string
}

// New detects the mode. root is absolute within the cgroup file system.
func New(root string) (*Tree, error) {
	if !strings.HasPrefix(root, "/") {
		return nil, fmt.Errorf("cgroup root %q has to begin with a slash", root)
	}
	t := &Tree{root: filepath.Clean(root)}
	var st unix.Statfs_t
	if err := unix.Statfs(mountpoint, &st); err != nil {
		return nil, fmt.Errorf("cgroups are needed at %s: %w", mountpoint, err)
	}
	if st.Type == unix.CGROUP2_SUPER_MAGIC {
		t.mode, t.v2 = Unified, mountpoint
		return t, nil
	}
	raw, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("find cgroup mounts: %w", err)
	}
	t.v1, t.v2 = parseMounts(string(raw))
	if len(t.v1) == 0 {
		return nil, fmt.Errorf("no cgroup hierarchy is mounted below %s", mountpoint)
	}
	t.mode = Legacy
	if t.v2 != "" {
		t.mode = Hybrid
	}
	return t, nil
}

// parseMounts reads proc(5) mountinfo.
func parseMounts(mountinfo string) (v1 map[string]string, v2 string) {
	v1 = map[string]string{}
	for line := range strings.Lines(mountinfo) {
		head, tail, ok := strings.Cut(line, " - ")
		left, right := strings.Fields(head), strings.Fields(tail)
		if !ok || len(left) < 5 || len(right) < 3 {
			continue
		}
		at := left[4]
		if at != mountpoint && !strings.HasPrefix(at, mountpoint+"/") {
			continue
		}
		switch right[0] {
		case "cgroup2":
			v2 = at
		case "cgroup":
			for _, option := range strings.Split(right[2], ",") {
				if option = strings.TrimPrefix(option, "name="); option != "rw" && option != "ro" && !strings.Contains(option, "=") {
					v1[option] = at
				}
			}
		}
	}
	return v1, v2
}

// Mode tells the host's mode.
func (t *Tree) Mode() Mode { return t.mode }

// Path joins names below the root.
func (t *Tree) Path(elem ...string) string {
	return filepath.Join(append([]string{t.root}, elem...)...)
}

// Has says whether a controller can be used.
func (t *Tree) Has(controller string) bool {
	if t.mode != Unified {
		return t.v1[controller] != ""
	}
	raw, err := os.ReadFile(filepath.Join(t.v2, "cgroup.controllers"))
	return err == nil && strings.Contains(" "+strings.TrimSpace(string(raw))+" ", " "+controller+" ")
}

// HasFile says whether a cgroup has an interface file, such as
// memory.memsw.limit_in_bytes, which depends on the kernel's options.
func (t *Tree) HasFile(controller, path, name string) bool {
	_, err := os.Stat(filepath.Join(t.dir(controller, path), name))
	return err == nil
}

// V2Controllers are the controllers that the unified hierarchy offers in hybrid
// mode. Old versions of crun refuse to run when there are any.
func (t *Tree) V2Controllers() []string {
	raw, err := os.ReadFile(filepath.Join(t.v2, "cgroup.controllers"))
	if err != nil || t.v2 == "" {
		return nil
	}
	return strings.Fields(string(raw))
}

// dir is a cgroup's directory in the hierarchy of one controller.
func (t *Tree) dir(controller, path string) string {
	if t.mode == Unified {
		return filepath.Join(t.v2, path)
	}
	at := t.v1[controller]
	if at == "" {
		return ""
	}
	return filepath.Join(at, path)
}

// dirs are a cgroup's directories in all hierarchies, each once.
func (t *Tree) dirs(path string) []string {
	seen := map[string]bool{}
	for _, at := range t.v1 {
		seen[filepath.Join(at, path)] = true
	}
	if t.v2 != "" {
		seen[filepath.Join(t.v2, path)] = true
	}
	out := make([]string, 0, len(seen))
	for dir := range seen {
		out = append(out, dir)
	}
	sort.Strings(out)
	return out
}

// trackers are directories that show all processes of a cgroup. An OCI runtime
// joins all v1 hierarchies, so any one of them does.
func (t *Tree) tracker(path string) string {
	if t.mode == Unified {
		return filepath.Join(t.v2, path)
	}
	for _, name := range []string{"pids", "freezer", "memory", "cpu"} {
		if dir := t.dir(name, path); dir != "" {
			return dir
		}
	}
	return ""
}

// Remove deletes a cgroup and those below it; it is well if there are none. It
// waits, until ctx ends, for processes that are on their way out.
func (t *Tree) Remove(ctx context.Context, path string) error {
	var errs []error
	for _, dir := range t.dirs(path) {
		if err := removeTree(ctx, dir); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func removeTree(ctx context.Context, dir string) error {
	// The usual case is one system call: a leaf, or nothing there.
	err := unix.Rmdir(dir)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	entries, readErr := os.ReadDir(dir)
	if errors.Is(readErr, fs.ErrNotExist) {
		return nil
	}
	for _, entry := range entries {
		if entry.IsDir() {
			if err := removeTree(ctx, filepath.Join(dir, entry.Name())); err != nil {
				return err
			}
		}
	}
	for wait := time.Millisecond; ; wait *= 2 {
		err = unix.Rmdir(dir)
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if !errors.Is(err, unix.EBUSY) || wait > 512*time.Millisecond {
			return fmt.Errorf("remove cgroup %s: %w", dir, err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("remove cgroup %s: %w", dir, err)
		case <-time.After(wait):
		}
	}
}
