package local

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/containerd/continuity"

	"golang.org/x/sys/unix"
)

// ErrNoCluster: there is no cluster of that name.
var ErrNoCluster = errors.New("no such cluster")

const stateFile = "cluster.json"

// unfinishedState is what the names of files begin with that are to become the
// state (continuity.AtomicWriteFile).
const unfinishedState = ".tmp-" + stateFile

// Load finds a cluster by its directory, or by its name if dir is empty:
// through the index under /run, or else in the default place.
func Load(name, dir string) (*Cluster, error) {
	if dir == "" {
		dir = DefaultDir(name)
		if indexed, err := os.Readlink(indexLink(name)); err == nil {
			dir = indexed
		}
	}
	content, err := os.ReadFile(filepath.Join(dir, stateFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cluster %q (in %s): %w; 'lighter local ls' shows what there is", name, dir, ErrNoCluster)
	} else if err != nil {
		return nil, err
	}
	cluster := &Cluster{}
	if err := json.Unmarshal(content, cluster); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, stateFile), err)
	}
	if name != "" && cluster.Name != name {
		return nil, fmt.Errorf("%s holds the cluster %q, not %q: give --name or another --dir", dir, cluster.Name, name)
	}
	return cluster, nil
}

// List finds all clusters of this machine.
func List() ([]*Cluster, error) {
	seen := map[string]*Cluster{}
	var names []string
	for _, pattern := range []string{indexLink("*"), filepath.Join(DataRoot, "*", stateFile)} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			return nil, err
		}
		for _, path := range found {
			name := filepath.Base(filepath.Dir(path))
			if filepath.Dir(path) == RunRoot {
				name = filepath.Base(path[:len(path)-len(".dir")])
			}
			if cluster, err := Load(name, ""); err == nil && seen[name] == nil {
				seen[name] = cluster
				names = append(names, name)
			}
		}
	}
	clusters := make([]*Cluster, 0, len(names))
	for _, name := range names {
		clusters = append(clusters, seen[name])
	}
	return clusters, nil
}

// indexLink points from a cluster's name to its directory. It lives under /run
// and so lasts as long as the namespaces do.
func indexLink(name string) string { return filepath.Join(RunRoot, name+".dir") }

// save writes the wish before anything of it is made.
func (c *Cluster) save() error {
	content, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(c.Dir, 0o755); err != nil {
		return err
	}
	return continuity.AtomicWriteFile(filepath.Join(c.Dir, stateFile), append(content, '\n'), 0o644)
}

// lock keeps two verbs on one cluster apart; the second waits. The kernel drops
// the lock of a process that dies.
func lock(dir string) (unlock func(), err error) {
	path := filepath.Join(dir, "lock")
	for {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
		file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o600)
		if err != nil {
			return nil, err
		}
		if err := flock(file); err != nil {
			file.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		// While we waited, "down" may have removed the file we opened.
		held, err1 := file.Stat()
		named, err2 := os.Stat(path)
		if err1 == nil && err2 == nil && os.SameFile(held, named) {
			return func() { file.Close() }, nil
		}
		file.Close()
	}
}

func flock(file *os.File) error {
	for {
		if err := unix.Flock(int(file.Fd()), unix.LOCK_EX); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
