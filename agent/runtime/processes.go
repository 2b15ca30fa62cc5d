package runtime

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"lighter.dev/lighter/api/agentapi"
)

// userHZ is the unit of times in /proc, the same on all architectures (proc(5)).
const userHZ = 100

// Processes lists the processes of a running container, the first one first.
func (e *Engine) Processes(_ context.Context, id string) ([]agentapi.Process, error) {
	c, err := e.lookup(id)
	if err != nil {
		return nil, err
	}
	state, group := e.state(c), e.containerCgroup(&c.spec)
	c.mu.Unlock()
	if state != StateRunning {
		return nil, fmt.Errorf("processes of container %s: it is %s: %w", id, state, errdefs.ErrFailedPrecondition)
	}
	pids, err := e.cgroups.Processes(group)
	if err != nil {
		return nil, err
	}
	boot, err := bootTime()
	if err != nil {
		return nil, err
	}
	out := make([]agentapi.Process, 0, len(pids))
	for _, pid := range pids {
		if p, err := readProcess(filepath.Join("/proc", strconv.Itoa(pid)), boot); err == nil {
			out = append(out, p)
		} // else it has ended since
	}
	return out, nil
}

// bootTime is when the host was started.
func bootTime() (time.Time, error) {
	raw, err := os.ReadFile("/proc/stat")
	if err != nil {
		return time.Time{}, fmt.Errorf("read the boot time: %w", err)
	}
	for line := range strings.Lines(string(raw)) {
		if text, ok := strings.CutPrefix(strings.TrimSpace(line), "btime "); ok {
			seconds, err := strconv.ParseInt(text, 10, 64)
			return time.Unix(seconds, 0), err
		}
	}
	return time.Time{}, fmt.Errorf("read the boot time: /proc/stat has no btime: %w", errdefs.ErrNotFound)
}

// readProcess reads what proc(5) says of a process; dir is its folder there.
func readProcess(dir string, boot time.Time) (agentapi.Process, error) {
	stat, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return agentapi.Process{}, err
	}
	// The command, field 2, may hold spaces and brackets.
	open, end := bytes.IndexByte(stat, '('), bytes.LastIndexByte(stat, ')')
	if open < 0 || end < open {
		return agentapi.Process{}, fmt.Errorf("%s/stat: %q", dir, stat)
	}
	fields := strings.Fields(string(stat[end+1:])) // from field 3 on
	if len(fields) < 22 {
		return agentapi.Process{}, fmt.Errorf("%s/stat: %q", dir, stat)
	}
	number := func(field int) int64 {
		n, _ := strconv.ParseInt(fields[field-3], 10, 64) // the kernel writes numbers
		return n
	}
	ticks := func(n int64) time.Duration { return time.Duration(n) * time.Second / userHZ }
	p := agentapi.Process{
		PPID: int(number(4)), CPU: ticks(number(14) + number(15)), Started: boot.Add(ticks(number(22))),
		RSS: number(24) * int64(os.Getpagesize()), UID: userOf(dir),
	}
	if p.PID, err = strconv.Atoi(filepath.Base(dir)); err != nil {
		return agentapi.Process{}, err
	}
	if p.Command = commandLine(dir); p.Command == nil {
		p.Command = []string{"[" + string(stat[open+1:end]) + "]"}
	}
	return p, nil
}

// userOf is the effective user of a process.
func userOf(dir string) uint32 {
	raw, err := os.ReadFile(filepath.Join(dir, "status"))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(raw)) {
		if fields := strings.Fields(line); len(fields) > 2 && fields[0] == "Uid:" {
			uid, _ := strconv.ParseUint(fields[2], 10, 32)
			return uint32(uid)
		}
	}
	return 0
}
