package image

import (
	"math/rand/v2"
	"sync"

	"github.com/opencontainers/go-digest"
)

// Many hosts that want one image at once would each fetch all of it from its
// registry, for no host is known to hold it yet. So hosts take turns at the
// registry: for each large blob one of them fetches it there, the others wait and
// take it from that one. Who it is they settle by the mutual exclusion of Ricart and
// Agrawala: a host that wants a blob draws a number of a Lamport clock and asks its
// neighbours, each of which says "go" unless it fetches the blob already or wants it
// with a lower number.
//
// The algorithm counts on everybody being there to be asked. Hosts that start at the
// same time are not, and a host that does not answer must not stop the others. So
// two rules are added, by which it is enough that one of two hosts hears the other:
// who fetches says "wait" whatever the number of who asks, and who let somebody past
// while it asked around asks again. Where two fetch after all, as when neither hears
// the other, that costs traffic only.
//
// This file is what a host remembers; neighbours.go asks and answers.

// turnTieBits keep numbers of different hosts from being the same.
const turnTieBits = 20

// turns are the blobs that this host wants to fetch from a registry.
type turns struct {
	mu    sync.Mutex
	clock uint64
	mine  map[digest.Digest]*turn
}

// turn is a host's wish for one blob, which its pulls share. What changes is guarded
// by all.mu.
type turn struct {
	all  *turns
	dgst digest.Digest
	over chan struct{} // closed when this host does not want the blob any more

	number   uint64
	users    int
	fetching int    // users that fetch from the registry now
	passed   uint64 // how often somebody was told to go before this host
}

// take draws a number for a blob. It is given back by leave, when the blob is here or
// the fetch has failed.
func (t *turns) take(dgst digest.Digest) *turn {
	t.mu.Lock()
	defer t.mu.Unlock()
	mine := t.mine[dgst]
	if mine == nil {
		mine = &turn{all: t, dgst: dgst, number: t.draw(), over: make(chan struct{})}
		if t.mine == nil {
			t.mine = map[digest.Digest]*turn{}
		}
		t.mine[dgst] = mine
	}
	mine.users++
	return mine
}

// draw is a number that comes after all that this host has heard of.
func (t *turns) draw() uint64 {
	t.clock++
	return t.clock<<turnTieBits | rand.Uint64N(1<<turnTieBits)
}

// before tells whether this host comes before one with a number, and when that ends.
func (t *turns) before(dgst digest.Digest, number uint64) (over <-chan struct{}, first bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	// Whatever this host wants from now on comes after what it has heard of.
	t.clock = max(t.clock, number>>turnTieBits)
	mine := t.mine[dgst]
	if mine == nil {
		return nil, false
	}
	if mine.fetching > 0 || mine.number < number {
		return mine.over, true
	}
	mine.passed++
	return nil, false
}

// look is the number to ask neighbours with, and what enter has to be told after.
func (m *turn) look() (number, passed uint64) {
	m.all.mu.Lock()
	defer m.all.mu.Unlock()
	return m.number, m.passed
}

// enter begins to fetch from the registry, after a round of questions that began at
// look. It is refused if somebody was let past in the meantime: that one may not
// have been there to be asked.
func (m *turn) enter(passed uint64) bool {
	m.all.mu.Lock()
	defer m.all.mu.Unlock()
	if m.passed != passed {
		return false
	}
	m.fetching++
	return true
}

// exit ends what enter began. After a failure the others go first: a registry that
// does not answer this host may answer them.
func (m *turn) exit(failed bool) {
	m.all.mu.Lock()
	defer m.all.mu.Unlock()
	if m.fetching--; m.fetching == 0 && failed {
		m.number = m.all.draw()
	}
}

// leave gives the turn back.
func (m *turn) leave() {
	m.all.mu.Lock()
	defer m.all.mu.Unlock()
	if m.users--; m.users == 0 {
		delete(m.all.mine, m.dgst)
		close(m.over)
	}
}
