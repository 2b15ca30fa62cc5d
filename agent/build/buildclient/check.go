package buildclient

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// check finds a missing folder or Dockerfile and returns the folder's full path.
func (cfg Config) check() (string, error) {
	dir, err := filepath.Abs(cfg.ContextDir)
	if err != nil {
		return "", fmt.Errorf("build context %s: %w", cfg.ContextDir, err)
	}
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return "", fmt.Errorf("build context %s does not exist: correct spec.source.path (it is relative to the manifest's folder)", dir)
	case err != nil:
		return "", fmt.Errorf("build context: %w", err)
	case !info.IsDir():
		return "", fmt.Errorf("build context %s is a file, not a folder", dir)
	}
	file := filepath.Join(dir, filepath.FromSlash(cfg.dockerfile()))
	info, err = os.Stat(file)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return "", fmt.Errorf("there is no Dockerfile %s: create it, or name another in spec.dockerfile", file)
	case err != nil:
		return "", fmt.Errorf("look at the Dockerfile: %w", err)
	case info.IsDir():
		return "", fmt.Errorf("%s is a folder, not a Dockerfile", file)
	}
	return dir, nil
}
