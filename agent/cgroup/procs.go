package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Processes lists the processes of a cgroup and of those below it; a cgroup that
// does not exist has none.
func (t *Tree) Processes(path string) ([]int, error) {
	var out []int
	err := filepath.WalkDir(t.tracker(path), func(dir string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if !entry.IsDir() {
			return nil
		}
		raw, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, field := range strings.Fields(string(raw)) {
			if pid, err := strconv.Atoi(field); err == nil && pid > 0 {
				out = append(out, pid)
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list processes of cgroup %s: %w", path, err)
	}
	return out, nil
}

// killRounds bounds the chase after a fork bomb under v1; pids.max or the death
// of a PID namespace's first process ends it much earlier.
const killRounds = 64

// Kill sends SIGKILL to all processes of a cgroup, those that are being forked
// too: by cgroup.kill under v2, by repeating under v1.
func (t *Tree) Kill(path string) error {
	if t.mode == Unified {
		err := writeFile(filepath.Join(t.v2, path), "cgroup.kill", "1")
		if err == nil || errors.Is(err, fs.ErrNotExist) && !exists(filepath.Join(t.v2, path)) {
			return nil
		}
	}
	for range killRounds {
		pids, err := t.Processes(path)
		if err != nil {
			return err
		}
		fresh := false
		for _, pid := range pids {
			if !Dying(pid) {
				fresh = true
				_ = unix.Kill(pid, unix.SIGKILL)
			}
		}
		if !fresh {
			return nil
		}
	}
	return fmt.Errorf("kill cgroup %s: processes keep forking", path)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// Dying says whether a process has SIGKILL pending, is on its way out, or has
// ended already.
func Dying(pid int) bool {
	dir := "/proc/" + strconv.Itoa(pid)
	status, err := os.ReadFile(dir + "/status")
	if err != nil || killed(string(status)) {
		return true
	}
	// Between the two a process has taken its SIGKILL and is not dead yet, which
	// may last on a busy machine.
	stat, err := os.ReadFile(dir + "/stat")
	return err != nil || exiting(string(stat))
}

// killed reads proc(5)'s status: is SIGKILL pending, or the process dead?
func killed(status string) bool {
	for line := range strings.Lines(status) {
		key, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch key {
		case "State":
			if strings.HasPrefix(value, "Z") || strings.HasPrefix(value, "X") {
				return true
			}
		case "SigPnd", "ShdPnd":
			if mask, err := strconv.ParseUint(value, 16, 64); err == nil && mask&(1<<(uint(unix.SIGKILL)-1)) != 0 {
				return true
			}
		}
	}
	return false
}

// exiting reads the flags in proc(5)'s stat, the ninth field. The second one, the
// command's name in parentheses, may itself have blanks and parentheses.
func exiting(stat string) bool {
	const pfExiting = 0x4 // PF_EXITING, linux/sched.h
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	const flags = 9 - 3 // the first of fields is the third of stat
	if len(fields) <= flags {
		return false
	}
	word, err := strconv.ParseUint(fields[flags], 10, 64)
	return err == nil && word&pfExiting != 0
}

// Join moves a process into a cgroup, in every hierarchy.
func (t *Tree) Join(path string, pid int) error {
	var errs []error
	for _, dir := range t.dirs(path) {
		if err := writeFile(dir, "cgroup.procs", strconv.Itoa(pid)); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// OpenV2 opens the directory of a cgroup for clone3's CLONE_INTO_CGROUP, which
// needs no migration. It fails outside of unified mode.
func (t *Tree) OpenV2(path string) (*os.File, error) {
	if t.mode != Unified {
		return nil, fmt.Errorf("cgroup %s: %w", path, errors.ErrUnsupported)
	}
	return os.Open(filepath.Join(t.v2, path))
}
