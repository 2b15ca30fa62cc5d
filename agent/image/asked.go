package image

import (
	"maps"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
)

// askedTimes notes when images were last wanted by a pod or a build: what was is
// removed last when the disk gets full.
type askedTimes struct {
	mu sync.Mutex
	at map[digest.Digest]time.Time
}

func (a *askedTimes) note(dgst digest.Digest) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.at == nil {
		a.at = map[digest.Digest]time.Time{}
	}
	a.at[dgst] = time.Now()
}

// Asked is when each image was last asked for, since the store was opened.
func (s *Store) Asked() map[digest.Digest]time.Time {
	s.asked.mu.Lock()
	defer s.asked.mu.Unlock()
	return maps.Clone(s.asked.at)
}
