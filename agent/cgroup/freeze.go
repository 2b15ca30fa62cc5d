package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/errdefs"
)

// freezeLook is how often a freeze is looked at: a process in the middle of a
// system call may take a moment to stop.
const freezeLook = 2 * time.Millisecond

// Freeze stops all processes of a cgroup and returns when they stand still, or
// thaws it again when ctx ends before that. Where the host has no freezer the error
// is errdefs.ErrNotImplemented.
func (t *Tree) Freeze(ctx context.Context, path string) error {
	frozen, err := t.setFrozen(path, true)
	for err == nil && !frozen {
		timer := time.NewTimer(freezeLook)
		select {
		case <-timer.C:
			// Under v1 a freeze that did not reach all is repeated by writing again.
			frozen, err = t.setFrozen(path, true)
		case <-ctx.Done():
			timer.Stop()
			err = ctx.Err()
		}
	}
	if err != nil {
		return errors.Join(fmt.Errorf("freeze cgroup %s: %w", path, err), t.Thaw(path))
	}
	return nil
}

// Thaw lets the processes of a cgroup go on. It is well if they never stopped, or
// if there is no such cgroup.
func (t *Tree) Thaw(path string) error {
	_, err := t.setFrozen(path, false)
	if err == nil || errors.Is(err, fs.ErrNotExist) || errdefs.IsNotImplemented(err) {
		return nil
	}
	return fmt.Errorf("thaw cgroup %s: %w", path, err)
}

// setFrozen asks for a state and tells whether it is reached.
func (t *Tree) setFrozen(path string, want bool) (bool, error) {
	if t.mode == Unified {
		dir := filepath.Join(t.v2, path)
		if err := writeFile(dir, "cgroup.freeze", map[bool]string{true: "1", false: "0"}[want]); err != nil {
			return false, err
		}
		raw, err := os.ReadFile(filepath.Join(dir, "cgroup.events"))
		return strings.Contains(string(raw), "frozen 1") == want, err
	}
	at := t.v1["freezer"]
	if at == "" {
		return false, fmt.Errorf("this host mounts no freezer: %w", errdefs.ErrNotImplemented)
	}
	state, dir := "THAWED", filepath.Join(at, path)
	if want {
		state = "FROZEN"
	}
	if err := writeFile(dir, "freezer.state", state); err != nil {
		return false, err
	}
	raw, err := os.ReadFile(filepath.Join(dir, "freezer.state"))
	return strings.TrimSpace(string(raw)) == state, err
}
