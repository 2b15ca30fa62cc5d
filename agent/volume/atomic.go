package volume

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// The names that kubelet uses too, and that programs which watch for changes
// of a mounted ConfigMap (by inotify on ..data) rely on.
const (
	dataLink    = "..data"
	dataLinkNew = "..data_tmp"
	stampPrefix = "..20"
)

// writeAtomically replaces the content of a volume in one step:
//
//	key        -> ..data/key            (stays)
//	..data     -> ..2026_…              (swapped by rename)
//	..2026_…/key                        (the files)
//
// A reader that opened ..data sees one version, never a mixture. Nothing is
// written when the content is the same.
func writeAtomically(dir string, files payload, group *int64) error {
	for name := range files {
		if err := checkName(name); err != nil {
			return err
		}
	}
	old, err := os.Readlink(filepath.Join(dir, dataLink))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err == nil && same(filepath.Join(dir, old), files) {
		return errors.Join(link(dir, files), prune(dir, old, files))
	}
	stamp, err := writeVersion(dir, files, group)
	if err != nil {
		return err
	}
	tmp := filepath.Join(dir, dataLinkNew)
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Symlink(stamp, tmp); err != nil {
		return err
	}
	if err := os.Rename(tmp, filepath.Join(dir, dataLink)); err != nil {
		return err
	}
	return errors.Join(link(dir, files), prune(dir, stamp, files))
}

// checkName refuses paths that would leave the volume or hit our own links.
func checkName(name string) error {
	if name == "" || filepath.IsAbs(name) || strings.HasPrefix(name, "..") {
		return fmt.Errorf("invalid file name %q in volume", name)
	}
	for _, part := range strings.Split(name, "/") {
		if part == ".." {
			return fmt.Errorf("invalid file name %q in volume: it must not contain '..'", name)
		}
	}
	return nil
}

// writeVersion writes all files into a new time-stamped folder.
func writeVersion(dir string, files payload, group *int64) (string, error) {
	path, err := os.MkdirTemp(dir, stampPrefix)
	if err != nil {
		return "", err
	}
	if err := os.Chmod(path, 0o755); err != nil {
		return "", err
	}
	for name, f := range files {
		full := filepath.Join(path, name)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			return "", err
		}
		if err := os.WriteFile(full, f.data, f.mode); err != nil {
			return "", err
		}
		if err := protect(full, f, group); err != nil {
			return "", err
		}
	}
	return filepath.Base(path), nil
}

// protect sets owner and mode. With an fsGroup the group may read.
func protect(path string, f file, group *int64) error {
	mode, gid := f.mode, -1
	if group != nil {
		gid = int(*group)
		mode |= 0o040
	}
	if gid != -1 || f.uid != -1 {
		if err := os.Chown(path, f.uid, gid); err != nil {
			return err
		}
	}
	return os.Chmod(path, mode)
}

// same compares names, content and modes.
func same(dir string, files payload) bool {
	count := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		count++
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		want, ok := files[name]
		if !ok {
			return fs.ErrNotExist
		}
		have, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if !bytes.Equal(have, want.data) {
			return fs.ErrInvalid
		}
		return nil
	})
	return err == nil && count == len(files)
}

// link makes the names that users see: the first element of each path.
func link(dir string, files payload) error {
	for name := range files {
		top, _, _ := strings.Cut(name, "/")
		err := os.Symlink(filepath.Join(dataLink, top), filepath.Join(dir, top))
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}

// prune removes links to files that are gone, and old versions.
func prune(dir, current string, files payload) error {
	tops := map[string]bool{}
	for name := range files {
		top, _, _ := strings.Cut(name, "/")
		tops[top] = true
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		name := e.Name()
		switch {
		case name == dataLink || name == current:
		case strings.HasPrefix(name, stampPrefix) && e.IsDir():
			errs = append(errs, os.RemoveAll(filepath.Join(dir, name)))
		case !tops[name]:
			errs = append(errs, os.Remove(filepath.Join(dir, name)))
		}
	}
	return errors.Join(errs...)
}
