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

// Limits bound a cgroup. Zero means: leave the kernel's default.
type Limits struct {
	// CPUShares is the v1 weight, 2 to 262144, 1024 a CPU.
	CPUShares uint64
	// CPUQuota and CPUPeriod are microseconds (CFS bandwidth).
	CPUQuota  int64
	CPUPeriod uint64
	// Memory is in bytes.
	Memory int64
	// PIDs is a number of tasks.
	PIDs int64
}

// Create makes a cgroup in every hierarchy, with the controllers of the level
// above at work in it.
func (t *Tree) Create(path string) error {
	if t.mode == Unified {
		return t.createV2(path)
	}
	for _, dir := range t.dirs(path) {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("make cgroup: %w", err)
		}
	}
	if at := t.v1["cpuset"]; at != "" {
		return inheritCPUSet(at, path)
	}
	return nil
}

// createV2 enables on each level above path what is offered there. A controller
// that cannot be enabled (a process sits in the parent) is left out; the write
// that needs it fails and names it. In path itself none is: a cgroup that passes
// controllers on takes no processes (cgroups(7), "no internal processes"), and
// conmon's has to. In a pod's, the OCI runtime enables what a container needs.
func (t *Tree) createV2(path string) error {
	dir := t.v2
	for _, name := range strings.Split(strings.Trim(path, "/"), "/") {
		if err := enableAll(dir); err != nil {
			return err
		}
		dir = filepath.Join(dir, name)
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("make cgroup: %w", err)
		}
	}
	return nil
}

func enableAll(dir string) error {
	offered, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return fmt.Errorf("cgroup controllers: %w", err)
	}
	enabled, err := os.ReadFile(filepath.Join(dir, "cgroup.subtree_control"))
	if err != nil {
		return fmt.Errorf("cgroup controllers: %w", err)
	}
	on := " " + strings.TrimSpace(string(enabled)) + " "
	for _, name := range strings.Fields(string(offered)) {
		if !strings.Contains(on, " "+name+" ") {
			// Best effort, see createV2.
			_ = writeFile(dir, "cgroup.subtree_control", "+"+name)
		}
	}
	return nil
}

// inheritCPUSet copies cpus and mems downwards: a v1 cpuset is born empty, and
// no process can join an empty one.
func inheritCPUSet(at, path string) error {
	parent := at
	for _, name := range strings.Split(strings.Trim(path, "/"), "/") {
		dir := filepath.Join(parent, name)
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
			have, err := os.ReadFile(filepath.Join(dir, file))
			if err != nil {
				return fmt.Errorf("cpuset: %w", err)
			}
			if strings.TrimSpace(string(have)) != "" {
				continue
			}
			want, err := os.ReadFile(filepath.Join(parent, file))
			if err != nil {
				return fmt.Errorf("cpuset: %w", err)
			}
			if err := writeFile(dir, file, strings.TrimSpace(string(want))); err != nil {
				return err
			}
		}
		parent = dir
	}
	return nil
}

// Limit sets what is not zero in l.
func (t *Tree) Limit(path string, l Limits) error {
	if t.mode == Unified {
		return t.limitV2(path, l)
	}
	type write struct{ controller, file, value string }
	var writes []write
	if l.CPUShares > 0 {
		writes = append(writes, write{"cpu", "cpu.shares", strconv.FormatUint(l.CPUShares, 10)})
	}
	if l.CPUPeriod > 0 {
		writes = append(writes, write{"cpu", "cpu.cfs_period_us", strconv.FormatUint(l.CPUPeriod, 10)})
	}
	if l.CPUQuota != 0 {
		writes = append(writes, write{"cpu", "cpu.cfs_quota_us", strconv.FormatInt(l.CPUQuota, 10)})
	}
	if l.Memory > 0 {
		writes = append(writes, write{"memory", "memory.limit_in_bytes", strconv.FormatInt(l.Memory, 10)})
	}
	if l.PIDs > 0 {
		writes = append(writes, write{"pids", "pids.max", strconv.FormatInt(l.PIDs, 10)})
	}
	for _, w := range writes {
		dir := t.dir(w.controller, path)
		if dir == "" {
			return fmt.Errorf("cgroup %s: this host has no %s controller", path, w.controller)
		}
		if err := writeFile(dir, w.file, w.value); err != nil {
			return err
		}
	}
	return nil
}

func (t *Tree) limitV2(path string, l Limits) error {
	dir := filepath.Join(t.v2, path)
	var errs []error
	if l.CPUShares > 0 {
		errs = append(errs, writeFile(dir, "cpu.weight", strconv.FormatUint(weightOf(l.CPUShares), 10)))
	}
	if l.CPUQuota != 0 {
		quota := "max"
		if l.CPUQuota > 0 {
			quota = strconv.FormatInt(l.CPUQuota, 10)
		}
		if l.CPUPeriod > 0 {
			quota += " " + strconv.FormatUint(l.CPUPeriod, 10)
		}
		errs = append(errs, writeFile(dir, "cpu.max", quota))
	}
	if l.Memory > 0 {
		errs = append(errs, writeFile(dir, "memory.max", strconv.FormatInt(l.Memory, 10)))
	}
	if l.PIDs > 0 {
		errs = append(errs, writeFile(dir, "pids.max", strconv.FormatInt(l.PIDs, 10)))
	}
	return errors.Join(errs...)
}

// weightOf maps v1 shares [2, 262144] linearly to v2 weights [1, 10000], as
// runc, crun and the kubelet do (KEP-2254).
func weightOf(shares uint64) uint64 {
	shares = min(max(shares, 2), 262144)
	return 1 + ((shares-2)*9999)/262142
}

// writeFile writes one value with one system call, as cgroup files want it.
func writeFile(dir, file, value string) error {
	path := filepath.Join(dir, file)
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("cgroup %s: %w", path, err)
	}
	defer func() { _ = unix.Close(fd) }()
	if _, err := unix.Write(fd, []byte(value)); err != nil {
		return fmt.Errorf("cgroup %s: write %q: %w", path, value, err)
	}
	return nil
}
