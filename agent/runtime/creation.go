package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// endCreation ends conmon and the OCI runtime if they are still making the
// container, which an agent that was killed began. Otherwise they might put a
// process into a cgroup that has been emptied already, or make it anew. A runtime's
// helper that is left alone by that ends by itself.
func (e *Engine) endCreation(ctx context.Context, c *container) error {
	if !c.rec.StartedAt.IsZero() {
		return nil
	}
	for { // conmon may have started the runtime while we looked
		pids, err := e.creators(c.id)
		if err != nil || len(pids) == 0 {
			return err
		}
		for _, pid := range pids {
			start := startTime(pid)
			ended, err := watchExit(ctx, pid, start)
			if err == nil {
				err = signalProcess(pid, start, unix.SIGKILL)
			}
			if errors.Is(err, unix.ESRCH) {
				continue
			}
			if err != nil {
				return fmt.Errorf("end process %d: %w", pid, err)
			}
			<-ended
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// creators finds conmon and the runtime by their arguments: the container's ID,
// and our folder of the runtime's state.
func (e *Engine) creators(id string) ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		args := commandLine(filepath.Join("/proc", entry.Name()))
		if slices.Contains(args, id) && slices.ContainsFunc(args, func(arg string) bool { return strings.HasSuffix(arg, "--root="+e.ociRoot()) }) {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// commandLine is a process's arguments; none if it has ended, or is the kernel's.
// dir is its folder in proc(5).
func commandLine(dir string) []string {
	line, err := os.ReadFile(filepath.Join(dir, "cmdline"))
	if err != nil || len(line) == 0 {
		return nil
	}
	return strings.Split(strings.TrimRight(string(line), "\x00"), "\x00")
}
