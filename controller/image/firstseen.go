package image

import (
	"sync"
	"time"
)

// firstSeen remembers since when an Image has its generation. After a restart
// every Image is new again.
type firstSeen struct {
	mu     sync.Mutex
	now    func() time.Time
	byName map[string]sighting
}

type sighting struct {
	generation int64
	at         time.Time
}

func newFirstSeen(now func() time.Time) *firstSeen {
	return &firstSeen{now: now, byName: map[string]sighting{}}
}

// since tells for how long an Image has been seen at a generation: 0 at first.
func (f *firstSeen) since(image string, generation int64) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	seen, ok := f.byName[image]
	if !ok || seen.generation != generation {
		seen = sighting{generation, f.now()}
		f.byName[image] = seen
	}
	return f.now().Sub(seen.at)
}

// forget drops an Image that was deleted.
func (f *firstSeen) forget(image string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.byName, image)
}
