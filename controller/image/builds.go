package image

import (
	"sync"
	"time"
)

// unheard is how long a builder that was picked counts as busy although no
// condition Building shows it: its agent may still be receiving the context.
const unheard = 10 * time.Minute

// builds remembers which node builds, or last built, each image. It is a memory
// of choices: after a restart it fills from the Images' conditions.
type builds struct {
	mu     sync.Mutex
	now    func() time.Time
	byName map[string]*build
}

type build struct {
	node    string
	running bool
	since   time.Time // when it was picked
	seen    bool      // the condition Building was True since
}

func newBuilds(now func() time.Time) *builds {
	return &builds{now: now, byName: map[string]*build{}}
}

// start notes that node was picked for image.
func (b *builds) start(image, node string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.byName[image] = &build{node: node, running: true, since: b.now()}
}

// observe notes what an Image's condition Building says. node may be "" if the
// condition does not name one.
func (b *builds) observe(image, node string, building bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	known := b.byName[image]
	switch {
	case building && known == nil:
		b.byName[image] = &build{node: node, running: true, since: b.now(), seen: true}
	case building:
		known.running, known.seen = true, true
		if node != "" {
			known.node = node
		}
	case known != nil && known.seen:
		known.running = false
	}
}

// forget drops an Image that was deleted.
func (b *builds) forget(image string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.byName, image)
}

// loads counts running builds by node, without those of one image.
func (b *builds) loads(except string) map[string]int {
	b.mu.Lock()
	defer b.mu.Unlock()
	loads := map[string]int{}
	for image, known := range b.byName {
		if known.running && !known.seen && b.now().Sub(known.since) > unheard {
			known.running = false
		}
		if known.running && image != except {
			loads[known.node]++
		}
	}
	return loads
}

// last returns the node that builds an image or built it last, "" if unknown.
func (b *builds) last(image string) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if known := b.byName[image]; known != nil {
		return known.node
	}
	return ""
}
