package runtime

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Names of files in a container's directories.
const (
	specFile      = "spec.json"
	recordFile    = "record.json"
	oomFile       = "oom"
	pidFile       = "pid"
	conmonPIDFile = "conmon.pid"
	conmonLogFile = "conmon.log"
)

// record is what the engine has to remember of a container beside its spec. A
// process is named by its PID and its start time in clock ticks since boot, so
// that a reused PID is never taken for it.
type record struct {
	Boot        string    `json:"boot"`
	CreatedAt   time.Time `json:"createdAt"`
	StartedAt   time.Time `json:"startedAt,omitzero"`
	FinishedAt  time.Time `json:"finishedAt,omitzero"`
	PID         int       `json:"pid,omitempty"`
	PIDStart    uint64    `json:"pidStart,omitempty"`
	ConmonPID   int       `json:"conmonPID,omitempty"`
	ConmonStart uint64    `json:"conmonStart,omitempty"`
	// Paused is set before Pause freezes it.
	Paused bool `json:"paused,omitempty"`
	// Failed is set when the runtime refused to create or start it.
	Failed  bool   `json:"failed,omitempty"`
	Reason  string `json:"reason,omitempty"`
	Message string `json:"message,omitempty"`
}

func (e *Engine) saveRecord(c *container) error {
	if err := writeJSON(filepath.Join(e.stateDir(c.id), recordFile), &c.rec); err != nil {
		return fmt.Errorf("container %s: %w", c.id, err)
	}
	return nil
}

// writeJSON replaces a file in one step.
func writeJSON(path string, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return err
	}
	tmp := path + ".tmp"
	if err := os.WriteFile(tmp, raw, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

func readJSON(path string, v any) error {
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

func readPID(path string) int {
	raw, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(raw)))
	if err != nil {
		return 0
	}
	return pid
}

func readBootID() (string, error) {
	raw, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read the boot ID: %w", err)
	}
	return strings.TrimSpace(string(raw)), nil
}

// startTime is field 22 of /proc/<pid>/stat, 0 if there is no such process or it
// is a zombie.
func startTime(pid int) uint64 {
	if pid <= 0 {
		return 0
	}
	raw, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0
	}
	// The command, field 2, may hold spaces and brackets; the last ')' ends it.
	fields := bytes.Fields(raw[bytes.LastIndexByte(raw, ')')+1:])
	if len(fields) < 20 || fields[0][0] == 'Z' || fields[0][0] == 'X' {
		return 0
	}
	ticks, err := strconv.ParseUint(string(fields[19]), 10, 64)
	if err != nil {
		return 0
	}
	return ticks
}

// alive says whether the very process that the record names still runs.
func (e *Engine) alive(rec *record, pid int, start uint64) bool {
	return pid > 0 && start > 0 && rec.Boot == e.bootID && startTime(pid) == start
}

func (e *Engine) conmonAlive(rec *record) bool {
	return e.alive(rec, rec.ConmonPID, rec.ConmonStart)
}

func (e *Engine) initAlive(rec *record) bool { return e.alive(rec, rec.PID, rec.PIDStart) }

// signalProcess sends sig to a process that is known by PID and start time. The
// pidfd is opened before the check, so that the PID cannot change hands between.
func signalProcess(pid int, start uint64, sig unix.Signal) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	if startTime(pid) != start {
		return unix.ESRCH
	}
	return unix.PidfdSendSignal(fd, sig, nil, 0)
}
