package local

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// hierarchy is one mounted cgroup tree: the single one of cgroup v2, or one for
// each controller of v1 (and, in hybrid mode, an empty v2 beside them).
type hierarchy struct {
	mount string
	v2    bool
}

// hierarchies reads the mounted cgroup trees from the text of
// /proc/self/mountinfo (proc_pid_mountinfo(5)).
func hierarchies(mountinfo string) []hierarchy {
	var found []hierarchy
	scanner := bufio.NewScanner(strings.NewReader(mountinfo))
	seen := map[string]bool{}
	for scanner.Scan() {
		before, after, ok := strings.Cut(scanner.Text(), " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if !ok || len(left) < 5 || len(right) < 1 {
			continue
		}
		// A hierarchy that is mounted at two places counts once.
		key := left[2]
		if (right[0] != "cgroup" && right[0] != "cgroup2") || left[3] != "/" || seen[key] {
			continue
		}
		seen[key] = true
		found = append(found, hierarchy{mount: left[4], v2: right[0] == "cgroup2"})
	}
	return found
}

func mountedHierarchies() ([]hierarchy, error) {
	content, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		return nil, err
	}
	found := hierarchies(string(content))
	if len(found) == 0 {
		return nil, errors.New("no cgroup hierarchy is mounted (expected below /sys/fs/cgroup)")
	}
	return found, nil
}

// makeCgroup makes path in every hierarchy and its controllers usable in it.
func makeCgroup(path string) error {
	trees, err := mountedHierarchies()
	if err != nil {
		return err
	}
	for _, tree := range trees {
		dir := tree.mount
		for _, part := range strings.Split(strings.Trim(path, "/"), "/") {
			if tree.v2 {
				delegateControllers(dir)
			}
			dir = filepath.Join(dir, part)
			if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
				return fmt.Errorf("make cgroup: %w", err)
			}
			if err := inheritCpuset(dir); err != nil {
				return err
			}
		}
	}
	return nil
}

// delegateControllers hands all controllers of a v2 cgroup to its children.
// One by one, and as far as they go: which exist depends on the kernel.
func delegateControllers(dir string) {
	content, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return
	}
	for _, controller := range strings.Fields(string(content)) {
		_ = os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+controller), 0o644)
	}
}

// inheritCpuset fills what v1's cpuset leaves empty; without it no process may
// enter the cgroup.
func inheritCpuset(dir string) error {
	for _, name := range []string{"cpuset.cpus", "cpuset.mems"} {
		own, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || strings.TrimSpace(string(own)) != "" {
			continue
		}
		parent, err := os.ReadFile(filepath.Join(filepath.Dir(dir), name))
		if err != nil || strings.TrimSpace(string(parent)) == "" {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, name), parent, 0o644); err != nil {
			return fmt.Errorf("cpuset of %s: %w", dir, err)
		}
	}
	return nil
}

// joinCgroup moves the calling thread into path in every v1 hierarchy, and
// returns a descriptor of path's v2 cgroup for clone3(CLONE_INTO_CGROUP), or nil
// if there is none: in v2 a thread cannot move alone.
func joinCgroup(path string) (*os.File, error) {
	trees, err := mountedHierarchies()
	if err != nil {
		return nil, err
	}
	var unified *os.File
	for _, tree := range trees {
		dir := filepath.Join(tree.mount, path)
		if tree.v2 {
			if unified, err = os.Open(dir); err != nil {
				return nil, err
			}
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, "tasks"), []byte(strconv.Itoa(unix.Gettid())), 0o644); err != nil {
			return unified, fmt.Errorf("enter cgroup: %w", err)
		}
	}
	return unified, nil
}

// cgroupPIDs lists the processes in path and below, in all hierarchies, but for
// our own: while one of our threads is there to start something, and until the
// kernel has buried it, cgroup.procs of v1 names our whole process.
func cgroupPIDs(path string) (map[int]bool, error) {
	trees, err := mountedHierarchies()
	if err != nil {
		return nil, err
	}
	pids := map[int]bool{}
	for _, tree := range trees {
		// A cgroup that goes away while we walk has no processes: no error.
		_ = filepath.WalkDir(filepath.Join(tree.mount, path), func(name string, entry fs.DirEntry, err error) error {
			if err != nil || !entry.IsDir() {
				return nil //nolint:nilerr // see above
			}
			content, _ := os.ReadFile(filepath.Join(name, "cgroup.procs"))
			for _, field := range strings.Fields(string(content)) {
				if pid, err := strconv.Atoi(field); err == nil && pid != os.Getpid() {
					pids[pid] = true
				}
			}
			return nil
		})
	}
	return pids, nil
}

// removeCgroup removes path and all below it, in all hierarchies. Its processes
// must be dead; the kernel may take a moment to notice.
func removeCgroup(path string) error {
	trees, err := mountedHierarchies()
	if err != nil {
		return err
	}
	var errs []error
	for _, tree := range trees {
		errs = append(errs, removeTree(filepath.Join(tree.mount, path)))
	}
	return errors.Join(errs...)
}

func removeTree(root string) error {
	var dirs []string
	_ = filepath.WalkDir(root, func(name string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			dirs = append(dirs, name)
		}
		return nil
	})
	deadline := time.Now().Add(5 * time.Second)
	for len(dirs) > 0 {
		err := os.Remove(dirs[len(dirs)-1])
		switch {
		case err == nil || errors.Is(err, fs.ErrNotExist):
			dirs = dirs[:len(dirs)-1]
		case errors.Is(err, unix.EBUSY) && time.Now().Before(deadline):
			<-time.After(5 * time.Millisecond)
		default:
			return fmt.Errorf("remove cgroup: %w", err)
		}
	}
	return nil
}
