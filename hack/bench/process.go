package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// process is one of a host's.
type process struct {
	pid     int
	name    string
	cgroups string  // the content of /proc/PID/cgroup
	rssAnon float64 // anonymous memory in RAM, in MB
}

// processes finds those whose cgroup lies below a path, in any hierarchy.
func processes(cgroup string) ([]process, error) {
	paths, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	var found []process
	for _, path := range paths {
		cgroups, err := os.ReadFile(filepath.Join(path, "cgroup"))
		if err != nil || !strings.Contains(string(cgroups), ":"+cgroup+"/") {
			continue // not ours, or gone
		}
		status, err := os.ReadFile(filepath.Join(path, "status"))
		if err != nil {
			continue
		}
		p := process{cgroups: string(cgroups)}
		if p.pid, err = strconv.Atoi(filepath.Base(path)); err != nil {
			return nil, err
		}
		if p.name, p.rssAnon, err = parseStatus(string(status)); err == nil {
			found = append(found, p)
		}
	}
	return found, nil
}

// parseStatus reads /proc/PID/status (proc_pid_status(5)).
func parseStatus(status string) (name string, rssAnon float64, err error) {
	for line := range strings.Lines(status) {
		key, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch key {
		case "Name":
			name = value
		case "RssAnon":
			kb, err := strconv.ParseFloat(strings.TrimSuffix(value, " kB"), 64)
			return name, kb / 1024, err
		}
	}
	return name, 0, fmt.Errorf("%s has no memory: a thread of the kernel or a zombie", name)
}
