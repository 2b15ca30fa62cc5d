package reclaim

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/containerd/continuity"
	"github.com/opencontainers/go-digest"
)

// usage remembers when each image was used last, in a file: an agent that is started
// again must not take all images for unused.
type usage struct {
	path  string
	at    map[digest.Digest]time.Time
	dirty bool
}

// openUsage reads the file. One that is damaged counts as none: the images are
// then as old as their arrival.
func openUsage(path string) (*usage, error) {
	u := &usage{path: path, at: map[digest.Digest]time.Time{}}
	content, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("read when images were used: %w", err)
	default:
		if json.Unmarshal(content, &u.at) != nil || u.at == nil {
			u.at = map[digest.Digest]time.Time{}
		}
	}
	return u, nil
}

// note moves an image's time forward.
func (u *usage) note(dgst digest.Digest, at time.Time) {
	if at.After(u.at[dgst]) {
		u.at[dgst], u.dirty = at, true
	}
}

// keep forgets images that are not on the host any more.
func (u *usage) keep(images []Image) {
	here := map[digest.Digest]bool{}
	for _, img := range images {
		here[img.Digest] = true
	}
	for dgst := range u.at {
		if !here[dgst] {
			delete(u.at, dgst)
			u.dirty = true
		}
	}
}

// save writes the file if something changed.
func (u *usage) save() error {
	if !u.dirty {
		return nil
	}
	content, err := json.Marshal(u.at)
	if err == nil {
		err = continuity.AtomicWriteFile(u.path, content, 0o600)
	}
	if err != nil {
		return fmt.Errorf("note when images were used: %w", err)
	}
	u.dirty = false
	return nil
}
