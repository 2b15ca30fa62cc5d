package buildclient

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// check finds a missing folder or Dockerfile and returns the folder's full path,
// "" if no folder is sent.
func (cfg Config) check() (string, error) {
	if cfg.ContextDir == "" {
		return "", nil
	}
	dir, err := filepath.Abs(cfg.ContextDir)
	if err != nil {
		return "", fmt.Errorf("build context %s: %w", cfg.ContextDir, err)
	}
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return "", fmt.Errorf("build context %s does not exist: correct the folder (a manifest's spec.source.path is relative to the manifest)", dir)
	case err != nil:
		return "", fmt.Errorf("build context: %w", err)
	case !info.IsDir():
		return "", fmt.Errorf("build context %s is a file, not a folder", dir)
	}
	beside := dir
	if cfg.DockerfileDir != "" {
		beside = cfg.DockerfileDir
	}
	return dir, checkFile(filepath.Join(beside, filepath.FromSlash(cfg.dockerfile())))
}

func checkFile(file string) error {
	info, err := os.Stat(file)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("there is no Dockerfile %s: create it, or name another (-f, in a manifest spec.dockerfile)", file)
	case err != nil:
		return fmt.Errorf("look at the Dockerfile: %w", err)
	case info.IsDir():
		return fmt.Errorf("%s is a folder, not a Dockerfile", file)
	}
	return nil
}
