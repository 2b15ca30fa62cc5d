package assign

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// suffix of checkpoint files; files that end otherwise are half-written.
const suffix = ".json"

// checkpoints is a folder with one pod object a file. Secrets are not in pod
// objects, but environment variables are, so only root may read it.
type checkpoints struct {
	dir string
	log *slog.Logger
}

func openCheckpoints(dir string, log *slog.Logger) (*checkpoints, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("checkpoint folder: %w", err)
	}
	return &checkpoints{dir, log}, nil
}

func (c *checkpoints) path(uid types.UID) string {
	return filepath.Join(c.dir, string(uid)+suffix)
}

// save replaces a checkpoint in one step. It is not flushed to the disk: it
// has to survive the death of the agent, and after a power loss no container
// is left that could be adopted.
func (c *checkpoints) save(pod *corev1.Pod) error {
	raw, err := json.Marshal(pod)
	if err != nil {
		return err
	}
	tmp := filepath.Join(c.dir, string(pod.UID)+".tmp")
	if err := os.WriteFile(tmp, raw, 0o600); err != nil {
		_ = os.Remove(tmp)
		return err
	}
	return os.Rename(tmp, c.path(pod.UID))
}

func (c *checkpoints) remove(uid types.UID) error {
	if err := os.Remove(c.path(uid)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// load reads all checkpoints. One that cannot be read is logged and left out:
// the API will send the pod again.
func (c *checkpoints) load() []*corev1.Pod {
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		c.log.Error("Cannot read checkpoints", "err", err)
		return nil
	}
	var out []*corev1.Pod
	for _, e := range entries {
		path := filepath.Join(c.dir, e.Name())
		if !strings.HasSuffix(e.Name(), suffix) {
			_ = os.Remove(path)
			continue
		}
		pod, err := read(path)
		if err != nil {
			c.log.Warn("Ignoring unreadable checkpoint", "file", path, "err", err)
			_ = os.Remove(path)
			continue
		}
		out = append(out, pod)
	}
	return out
}

func read(path string) (*corev1.Pod, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	pod := &corev1.Pod{}
	if err := json.Unmarshal(raw, pod); err != nil {
		return nil, err
	}
	if string(pod.UID)+suffix != filepath.Base(path) {
		return nil, fmt.Errorf("it holds another pod (%s)", pod.UID)
	}
	return pod, nil
}
