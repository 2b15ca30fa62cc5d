package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/fsnotify/fsnotify"
)

// CopyLog writes a log file to out and, with follow, whatever is appended to it
// until ctx ends.
func CopyLog(ctx context.Context, out io.Writer, path string, follow bool) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	if !follow {
		_, err := io.Copy(out, file)
		return err
	}
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch %s: %w", path, err)
	}
	defer watcher.Close()
	// Before the first copy, so that nothing is appended unseen.
	if err := watcher.Add(path); err != nil {
		return fmt.Errorf("watch %s: %w", path, err)
	}
	for {
		if _, err := io.Copy(out, file); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case err := <-watcher.Errors:
			return fmt.Errorf("watch %s: %w", path, err)
		case event, ok := <-watcher.Events:
			if !ok || event.Has(fsnotify.Remove) {
				return errors.New("the log file was removed: the cluster is gone")
			}
		}
	}
}
