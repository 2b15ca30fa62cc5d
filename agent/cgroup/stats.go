package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Stats is the usage of one cgroup, those below it included.
type Stats struct {
	// CPU is the time spent on all CPUs since the cgroup was made.
	CPU time.Duration
	// Memory is what is charged, in bytes; WorkingSet is that without the page
	// cache that is easy to reclaim, which is what evictions go by.
	Memory, WorkingSet uint64
	// RSS is anonymous memory, in bytes.
	RSS uint64
	// PIDs counts tasks.
	PIDs uint64
}

// Stats reads a cgroup's usage. A file that the kernel lacks counts as zero; a
// cgroup that does not exist is an error.
func (t *Tree) Stats(path string) (Stats, error) {
	if dir := t.tracker(path); !exists(dir) {
		return Stats{}, fmt.Errorf("cgroup %s: %w", path, os.ErrNotExist)
	}
	var s Stats
	var inactive uint64
	if t.mode == Unified {
		dir := filepath.Join(t.v2, path)
		s.CPU = time.Duration(readKey(dir, "cpu.stat", "usage_usec")) * time.Microsecond
		s.Memory = readNumber(dir, "memory.current")
		inactive = readKey(dir, "memory.stat", "inactive_file")
		s.RSS = readKey(dir, "memory.stat", "anon")
		s.PIDs = readNumber(dir, "pids.current")
	} else {
		memory := t.dir("memory", path)
		s.CPU = time.Duration(readNumber(t.dir("cpuacct", path), "cpuacct.usage"))
		s.Memory = readNumber(memory, "memory.usage_in_bytes")
		inactive = readKey(memory, "memory.stat", "total_inactive_file")
		s.RSS = readKey(memory, "memory.stat", "total_rss")
		s.PIDs = readNumber(t.dir("pids", path), "pids.current")
	}
	if s.Memory > inactive {
		s.WorkingSet = s.Memory - inactive
	}
	return s, nil
}

// OOMKills counts the processes of a cgroup that the kernel killed for memory.
func (t *Tree) OOMKills(path string) uint64 {
	if t.mode == Unified {
		return readKey(filepath.Join(t.v2, path), "memory.events", "oom_kill")
	}
	return readKey(t.dir("memory", path), "memory.oom_control", "oom_kill")
}

func readNumber(dir, file string) uint64 {
	raw, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil || dir == "" {
		return 0
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(raw)), 10, 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		return 0
	}
	return n
}

// readKey reads one line of a "key value" file.
func readKey(dir, file, key string) uint64 {
	raw, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil || dir == "" {
		return 0
	}
	for line := range strings.Lines(string(raw)) {
		if name, value, _ := strings.Cut(strings.TrimSpace(line), " "); name == key {
			n, err := strconv.ParseUint(value, 10, 64)
			if err != nil {
				return 0
			}
			return n
		}
	}
	return 0
}
