package buildclient

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"

	"github.com/moby/buildkit/util/staticfs"
	"github.com/tonistiigi/fsutil"
	fstypes "github.com/tonistiigi/fsutil/types"
)

// inMemory is the context of cfg.Files, and the key by which the builder finds
// what it has of it. The builder compares sizes and times, and the files have no
// time: it gets a key that differs with their content.
func (cfg Config) inMemory() (mounts map[string]fsutil.FS, key string) {
	files := staticfs.NewFS()
	for name, content := range cfg.Files {
		files.Add(name, &fstypes.Stat{}, content)
	}
	return map[string]fsutil.FS{"context": files, "dockerfile": files}, cfg.Namespace + "/" + cfg.Name + ":" + hashFiles(cfg.Files)
}

// hashFiles tells two contexts in memory apart.
func hashFiles(files map[string][]byte) string {
	hash := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(files)) {
		fmt.Fprintf(hash, "%q %d\n", name, len(files[name]))
		hash.Write(files[name])
	}
	return hex.EncodeToString(hash.Sum(nil))
}
