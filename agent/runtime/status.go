package runtime

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
)

// exitStartError is the exit code that Kubernetes gives to what never ran.
const exitStartError = 128

// exitUnknown is the exit code of a container whose end nobody saw; 137 (killed)
// is what containerd and CRI-O report too.
const exitUnknown = 137

// Status observes one container; errdefs.ErrNotFound if there is none.
func (e *Engine) Status(_ context.Context, id string) (Status, error) {
	c, err := e.lookup(id)
	if err != nil {
		return Status{}, err
	}
	defer c.mu.Unlock()
	st := Status{
		Spec:      c.spec,
		State:     e.state(c),
		PID:       c.rec.PID,
		CreatedAt: c.rec.CreatedAt,
		StartedAt: c.rec.StartedAt,
		Reason:    c.rec.Reason,
		Message:   c.rec.Message,
	}
	switch st.State {
	case StateExited:
		e.fillExit(c, &st)
	case StateUnknown:
		st.ExitCode = exitUnknown
		st.FinishedAt = c.rec.FinishedAt
		if st.Reason == "" {
			st.Reason = "ContainerStatusUnknown"
			st.Message = "the container's supervisor is gone and left no exit code (power loss, or it was killed)"
		}
	}
	return st, nil
}

// state derives the state from files and processes; c.mu is held.
func (e *Engine) state(c *container) State {
	if c.rec.Failed {
		return StateExited
	}
	if _, err := os.Lstat(e.exitFile(c.id)); err == nil {
		return StateExited
	}
	if !e.conmonAlive(&c.rec) {
		// It may have written the exit file since the first look.
		if _, err := os.Lstat(e.exitFile(c.id)); err == nil {
			return StateExited
		}
		return StateUnknown
	}
	if c.rec.StartedAt.IsZero() {
		if _, err := os.Lstat(e.execFifo(c.id)); err == nil || c.rec.PID == 0 {
			return StateCreated
		}
		// Started by a process that died before it could say so.
		c.rec.StartedAt = c.rec.CreatedAt
	}
	return StateRunning
}

// fillExit reads what conmon and the container left. The first observer of an
// exit asks the cgroup about OOM kills, which Delete removes.
func (e *Engine) fillExit(c *container, st *Status) {
	if c.rec.Failed {
		st.ExitCode, st.FinishedAt = exitStartError, c.rec.FinishedAt
		return
	}
	st.ExitCode = exitUnknown
	if raw, err := os.ReadFile(e.exitFile(c.id)); err == nil {
		if code, err := strconv.Atoi(strings.TrimSpace(string(raw))); err == nil {
			st.ExitCode = code
		}
	}
	if info, err := os.Stat(e.exitFile(c.id)); err == nil {
		st.FinishedAt = info.ModTime()
	}
	if _, err := os.Lstat(filepath.Join(e.stateDir(c.id), oomFile)); err == nil {
		st.OOMKilled = true
	} else if e.cgroups.OOMKills(e.containerCgroup(&c.spec)) > 0 {
		st.OOMKilled = true
	}
	st.Message = e.terminationMessage(c, st.ExitCode)
}

// The bounds of a termination message, as documented by Kubernetes.
const (
	maxTerminationMessage = 4096
	maxTerminationLog     = 2048
	maxTerminationLines   = 80
)

func (e *Engine) terminationFile(id string) string {
	return filepath.Join(e.stateDir(id), "termination-log")
}

func (e *Engine) terminationMessage(c *container, code int) string {
	if text := readTail(e.terminationFile(c.id), maxTerminationMessage); text != "" {
		return text
	}
	if c.spec.Container == nil || code == 0 ||
		c.spec.Container.TerminationMessagePolicy != corev1.TerminationMessageFallbackToLogsOnError {
		return ""
	}
	var lines []string
	for line := range strings.Lines(readTail(c.spec.LogPath, 4*maxTerminationLog)) {
		// CRI log line: time, stream, tag, text.
		if parts := strings.SplitN(line, " ", 4); len(parts) == 4 {
			lines = append(lines, parts[3])
		}
	}
	lines = lines[max(0, len(lines)-maxTerminationLines):]
	text := strings.Join(lines, "")
	return text[max(0, len(text)-maxTerminationLog):]
}

func readTail(path string, limit int64) string {
	file, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return ""
	}
	buf := make([]byte, min(limit, info.Size()))
	n, err := file.ReadAt(buf, max(0, info.Size()-limit))
	if err != nil && !errors.Is(err, io.EOF) {
		return ""
	}
	return string(buf[:n])
}

// Wait blocks until a container no longer runs, or ctx ends; errdefs.ErrNotFound
// if there is none.
func (e *Engine) Wait(ctx context.Context, id string) error {
	c, err := e.lookup(id)
	if err != nil {
		return err
	}
	state, rec := e.state(c), c.rec
	c.mu.Unlock()
	if state != StateRunning && state != StateCreated {
		return nil
	}
	// conmon ends when the log is complete and the exit file is written.
	ended, err := watchExit(ctx, rec.ConmonPID, rec.ConmonStart)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("wait for container %s: %w", id, err)
	}
	<-ended
	return ctx.Err()
}
