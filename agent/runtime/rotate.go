package runtime

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// LogRotation bounds the logs of each container.
type LogRotation struct {
	// MaxBytes is the size at which a log is rotated; 0 means 10 MiB.
	MaxBytes int64
	// MaxFiles is how many are kept, the current one included; 0 means 5.
	MaxFiles int
	// Every is the time between looks; 0 means 10 s.
	Every time.Duration
}

// The kubelet's defaults (containerLogMaxSize, containerLogMaxFiles).
const (
	defaultLogBytes = 10 << 20
	defaultLogFiles = 5
	defaultLogEvery = 10 * time.Second
)

// rotatedAt is the suffix of a rotated log: names sort by age, within a second too.
const rotatedAt = "20060102-150405.000000000"

// RotateLogs keeps the logs of running containers bounded until ctx ends.
func (e *Engine) RotateLogs(ctx context.Context, limits LogRotation) error {
	if limits.MaxBytes <= 0 {
		limits.MaxBytes = defaultLogBytes
	}
	if limits.MaxFiles <= 0 {
		limits.MaxFiles = defaultLogFiles
	}
	if limits.Every <= 0 {
		limits.Every = defaultLogEvery
	}
	ticker := time.NewTicker(limits.Every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		for id, path := range e.logPaths() {
			if err := e.rotateLog(ctx, id, path, limits); err != nil {
				e.log.Warn("rotate a log", "id", id, "err", err)
			}
		}
	}
}

func (e *Engine) logPaths() map[string]string {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := make(map[string]string, len(e.containers))
	for id, c := range e.containers {
		if c.spec.LogPath != "" { // set once, before the container is known
			out[id] = c.spec.LogPath
		}
	}
	return out
}

// rotateLog renames a log that is too large, makes conmon open a new one, and
// removes the oldest. conmon writes on to the renamed file in between: no line is
// lost. An agent that dies in between leaves a log without a current file, which
// the next look mends.
func (e *Engine) rotateLog(ctx context.Context, id, path string, limits LogRotation) error {
	info, err := os.Stat(path)
	missing := errors.Is(err, fs.ErrNotExist)
	if err != nil && !missing {
		return err
	}
	if !missing && info.Size() < limits.MaxBytes {
		return nil
	}
	st, err := e.Status(ctx, id)
	if err != nil || (st.State != StateRunning && st.State != StateCreated) {
		return nil //nolint:nilerr // gone or ended: it will not grow
	}
	if !missing {
		if err := os.Rename(path, path+"."+time.Now().UTC().Format(rotatedAt)); err != nil {
			return fmt.Errorf("rotate %s: %w", path, err)
		}
	}
	if err := e.ReopenLog(ctx, id); err != nil {
		return err
	}
	return pruneLogs(path, limits.MaxFiles-1)
}

// pruneLogs keeps the newest rotated files of a log.
func pruneLogs(path string, keep int) error {
	entries, err := os.ReadDir(filepath.Dir(path)) // sorted by name, which is by age
	if err != nil {
		return err
	}
	var rotated []string
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), filepath.Base(path)+".") {
			rotated = append(rotated, filepath.Join(filepath.Dir(path), entry.Name()))
		}
	}
	var errs []error
	for _, old := range rotated[:max(0, len(rotated)-keep)] {
		errs = append(errs, removeFile(old))
	}
	return errors.Join(errs...)
}
