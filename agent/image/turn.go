package image

import (
	"cmp"
	"context"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Many hosts that want one image at once would each fetch all of it from its
// registry, for no host is known to hold it yet. So hosts take turns at the
// registry: for each large blob one of them fetches it there, the others wait and
// take it from that one. Who it is they settle by the mutual exclusion of Ricart and
// Agrawala: a host that wants a blob draws a number of a Lamport clock and asks its
// neighbours, each of which says "go" unless it wants the blob itself with a lower
// number. A host that does not answer has nothing to say. Where two fetch after all,
// as after a lost answer, that costs traffic only.

const (
	// turnSize is the size from which a blob is worth the question, in bytes.
	turnSize = 1 << 20
	// turnPatience is how long a neighbour holds its answer back while it is "wait".
	// It has to be less than peerAnswer.
	turnPatience = 3 * time.Second
	// turnTries is how many neighbours that said they had a blob may fail to send it.
	turnTries = 3
	// turnTieBits keep numbers of different hosts from being the same.
	turnTieBits = 20
)

// The answers of a neighbour.
const (
	turnHere = "here" // take it from me
	turnWait = "wait" // I fetch it, or will before you
	turnGo   = "go"
)

// NeighbourFinder is what a PeerFinder may also know: the agents that are up, this one
// excluded. Without it each host fetches from registries for itself.
type NeighbourFinder interface {
	Neighbours(ctx context.Context) []Peer
}

// turns are the blobs that this host wants to fetch from a registry.
type turns struct {
	mu    sync.Mutex
	clock uint64
	mine  map[digest.Digest]*turn
}

type turn struct {
	number uint64
	users  int
	over   chan struct{} // closed when this host does not want it any more
}

// take draws a number for a blob. It is given back by leave, when the blob is here or
// the fetch has failed.
func (t *turns) take(dgst digest.Digest) (number uint64, leave func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	mine := t.mine[dgst]
	if mine == nil {
		t.clock++
		mine = &turn{number: t.clock<<turnTieBits | rand.Uint64N(1<<turnTieBits), over: make(chan struct{})}
		if t.mine == nil {
			t.mine = map[digest.Digest]*turn{}
		}
		t.mine[dgst] = mine
	}
	mine.users++
	return mine.number, func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if mine.users--; mine.users == 0 {
			delete(t.mine, dgst)
			close(mine.over)
		}
	}
}

// before tells whether this host comes before one with a number, and when that ends.
func (t *turns) before(dgst digest.Digest, number uint64) (over <-chan struct{}, first bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	// Whatever this host wants from now on comes after what it has heard of.
	t.clock = max(t.clock, number>>turnTieBits)
	if mine := t.mine[dgst]; mine != nil && mine.number < number {
		return mine.over, true
	}
	return nil, false
}

// serveTurn answers a neighbour that wants to fetch a blob from its registry. With
// ?hold it does not say "wait" before turnPatience is over.
func (s *Store) serveTurn(w http.ResponseWriter, r *http.Request) {
	dgst, err := digest.Parse(r.PathValue("digest"))
	number, nerr := strconv.ParseUint(r.URL.Query().Get("number"), 10, 64)
	if err != nil || nerr != nil {
		http.Error(w, "want a digest and a number", http.StatusBadRequest)
		return
	}
	answer, over := s.turnAnswer(r.Context(), dgst, number)
	if answer == turnWait && r.URL.Query().Has("hold") {
		timer := time.NewTimer(turnPatience)
		defer timer.Stop()
		select {
		case <-over:
		case <-timer.C:
		case <-r.Context().Done():
		}
		answer, _ = s.turnAnswer(r.Context(), dgst, number)
	}
	_, _ = io.WriteString(w, answer) // the neighbour went away
}

func (s *Store) turnAnswer(ctx context.Context, dgst digest.Digest, number uint64) (answer string, over <-chan struct{}) {
	over, first := s.turns.before(dgst, number)
	if _, err := s.content.Info(s.in(ctx), dgst); err == nil {
		return turnHere, nil
	}
	if first {
		return turnWait, over
	}
	return turnGo, nil
}

// neighbours are the hosts to ask about a blob: all of them, or in a large cluster
// those that a hash of the blob points to, the same for everybody.
func (s *Store) neighbours(ctx context.Context, dgst digest.Digest) []Peer {
	finder, ok := s.cfg.Peers.(NeighbourFinder)
	if !ok {
		return nil
	}
	peers := slices.Clone(finder.Neighbours(ctx))
	weight := func(p Peer) uint64 {
		h := fnv.New64a()
		_, _ = io.WriteString(h, dgst.String()+"\x00"+p.Name) // a hash takes everything
		return h.Sum64()
	}
	slices.SortFunc(peers, func(a, b Peer) int { return cmp.Compare(weight(a), weight(b)) })
	return peers[:min(len(peers), maxPeers)]
}

// awaitTurn returns when this host may fetch a blob from its registry (nil), or the
// neighbours that have it by now. Those that do not answer are added to deaf.
func (s *Store) awaitTurn(ctx context.Context, dgst digest.Digest, number uint64, deaf *sync.Map) []Peer {
	for ctx.Err() == nil {
		answers := s.askTurns(ctx, dgst, number, deaf)
		if len(answers[turnHere]) > 0 {
			return shuffle(answers[turnHere])
		}
		if len(answers[turnWait]) == 0 {
			return nil
		}
		// The next look tells what its answer means.
		_, _ = s.askTurn(ctx, answers[turnWait][0], dgst, number, "&hold", deaf)
	}
	return nil
}

// askTurns asks all neighbours at once and sorts them by their answer.
func (s *Store) askTurns(ctx context.Context, dgst digest.Digest, number uint64, deaf *sync.Map) map[string][]Peer {
	var mu sync.Mutex
	var group sync.WaitGroup
	answers := map[string][]Peer{}
	for _, p := range s.neighbours(ctx, dgst) {
		if _, is := deaf.Load(p.URL); is {
			continue
		}
		group.Go(func() {
			answer, err := s.askTurn(ctx, p, dgst, number, "", deaf)
			if err == nil {
				mu.Lock()
				defer mu.Unlock()
				answers[answer] = append(answers[answer], p)
			}
		})
	}
	group.Wait()
	return answers
}

func (s *Store) askTurn(ctx context.Context, p Peer, dgst digest.Digest, number uint64, hold string, deaf *sync.Map) (string, error) {
	raw, err := s.getSmall(ctx, p, fmt.Sprintf("/content/turn/%s?number=%d%s", dgst, number, hold))
	if err != nil && ctx.Err() == nil {
		deaf.Store(p.URL, true)
	}
	return string(raw), err
}

// takeTurn draws a number for a blob that has to come, perhaps, from a registry; 0 if
// it is not worth the question.
func (f *fetcher) takeTurn(ctx context.Context, desc ocispec.Descriptor) (number uint64, leave func()) {
	if desc.Size < turnSize || !slices.ContainsFunc(f.sources, func(src source) bool { return !src.peer }) {
		return 0, func() {}
	}
	if _, err := f.store.content.Info(ctx, desc.Digest); err == nil {
		return 0, func() {}
	}
	return f.store.turns.take(desc.Digest)
}

// fromNeighbours fetches a blob from another host that has fetched it from its
// registry, or is about to. It returns false if this host has to do that.
func (f *fetcher) fromNeighbours(ctx context.Context, desc ocispec.Descriptor, number uint64) bool {
	for range turnTries {
		peers := f.store.awaitTurn(ctx, desc.Digest, number, &f.deaf)
		if len(peers) == 0 {
			return false
		}
		for _, src := range f.store.peerSources(peers) {
			err := f.fetchFrom(ctx, src, desc)
			if err == nil {
				return true
			}
			f.store.log.Debug("a neighbour did not send a blob", "from", src.name, "digest", desc.Digest, "error", err)
		}
	}
	return false
}
