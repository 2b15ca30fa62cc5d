package image

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"lighter.dev/lighter/api/rendezvous"
)

const (
	// turnSize is the size from which a blob is worth the question, in bytes.
	turnSize = 1 << 20
	// turnPatience is how long a neighbour holds its answer back while it is "wait".
	// It has to be well below peerAnswer, so that a busy host still answers in time.
	turnPatience = 2 * time.Second
	// maxNeighbours is how many hosts are asked whose turn it is. Two hosts take turns
	// if one asks the other: in a cluster that is larger, some may fetch beside others.
	maxNeighbours = 64
	// turnTries is how many neighbours that said they had a blob may fail to send it.
	turnTries = 3

	// deafAfter is the time from which a neighbour that did not answer has cost too
	// much to be asked about the next blob as well. One that refused the connection
	// costs nothing, and may be about to start.
	deafAfter = time.Second
	// deafTime is how long such a neighbour is left alone.
	deafTime = time.Minute
)

// The answers of a neighbour.
const (
	turnHere = "here" // take it from me
	turnWait = "wait" // I fetch it, or will before you
	turnGo   = "go"
)

// NeighbourFinder is what a PeerFinder may also know: the agents that are up, or may
// be, this one excluded. Without it each host fetches from registries for itself.
type NeighbourFinder interface {
	Neighbours(ctx context.Context) []Peer
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

// neighbours are the hosts to ask about a blob: all of them, or in a very large
// cluster those that a hash of the blob points to, the same for everybody.
func (s *Store) neighbours(ctx context.Context, dgst digest.Digest) []Peer {
	finder, ok := s.cfg.Peers.(NeighbourFinder)
	if !ok {
		return nil
	}
	peers := slices.Clone(finder.Neighbours(ctx))
	slices.SortFunc(peers, func(a, b Peer) int { return rendezvous.Compare(dgst.String(), a.Name, b.Name) })
	return peers[:min(len(peers), maxNeighbours)]
}

// awaitTurn returns when this host has entered its turn, or the neighbours that have
// the blob by now.
func (s *Store) awaitTurn(ctx context.Context, mine *turn) ([]Peer, error) {
	for ctx.Err() == nil {
		number, passed := mine.look()
		answers := s.askTurns(ctx, mine.dgst, number)
		switch {
		case ctx.Err() != nil:
		case len(answers[turnHere]) > 0:
			return shuffle(answers[turnHere]), nil
		case len(answers[turnWait]) > 0:
			// The next look tells what its answer means, or that it has gone.
			if _, err := s.askTurn(ctx, answers[turnWait][0], mine.dgst, number, "&hold"); err != nil {
				_ = pause(ctx, fetchBackoff) // the loop looks at ctx
			}
		case mine.enter(passed):
			return nil, nil
		}
	}
	return nil, ctx.Err()
}

// askTurns asks all neighbours at once and sorts them by their answer.
func (s *Store) askTurns(ctx context.Context, dgst digest.Digest, number uint64) map[string][]Peer {
	var mu sync.Mutex
	var group sync.WaitGroup
	answers := map[string][]Peer{}
	for _, p := range s.neighbours(ctx, dgst) {
		if s.deaf.is(p) {
			continue
		}
		group.Go(func() {
			answer, err := s.askTurn(ctx, p, dgst, number, "")
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

// askTurn asks one neighbour. One that takes too long is asked again if it still
// counts as up: a host that is busy is often the one that fetches.
func (s *Store) askTurn(ctx context.Context, p Peer, dgst digest.Digest, number uint64, hold string) (string, error) {
	path := fmt.Sprintf("/content/turn/%s?number=%d%s", dgst, number, hold)
	for last := false; ; last = true {
		start := time.Now()
		raw, err := s.getSmall(ctx, p, path)
		if err == nil || ctx.Err() != nil || time.Since(start) < deafAfter {
			return string(raw), err
		}
		if last || !slices.Contains(s.neighbours(ctx, dgst), p) {
			s.deaf.note(p)
			s.log.Info("a neighbour does not answer; images are fetched without it for a while", "neighbour", p.Name, "for", deafTime, "error", err)
			return "", err
		}
	}
}

// deafness remembers the neighbours that are left alone for a while.
type deafness struct {
	mu    sync.Mutex
	until map[string]time.Time // by URL
}

func (d *deafness) is(p Peer) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return time.Now().Before(d.until[p.URL])
}

func (d *deafness) note(p Peer) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.until == nil {
		d.until = map[string]time.Time{}
	}
	d.until[p.URL] = time.Now().Add(deafTime)
}

// takeTurn draws a number for a blob that has to come, perhaps, from a registry; nil
// if it is not worth the question.
func (f *fetcher) takeTurn(ctx context.Context, desc ocispec.Descriptor) *turn {
	if desc.Size < turnSize || !slices.ContainsFunc(f.sources, func(src source) bool { return !src.peer }) {
		return nil
	}
	if _, err := f.store.content.Info(ctx, desc.Digest); err == nil {
		return nil
	}
	return f.store.turns.take(desc.Digest)
}

// fetchInTurn fetches a blob from its registry when no neighbour is about to do so,
// else from the neighbour that has.
func (f *fetcher) fetchInTurn(ctx context.Context, registry source, desc ocispec.Descriptor, mine *turn) error {
	for range turnTries {
		peers, err := f.store.awaitTurn(ctx, mine)
		if err != nil {
			return err
		}
		if len(peers) == 0 {
			err := f.fetchFrom(ctx, registry, desc)
			mine.exit(err != nil)
			return err
		}
		for _, src := range f.store.peerSources(peers) {
			err := f.fetchFrom(ctx, src, desc)
			if err == nil {
				return nil
			}
			f.store.log.Debug("a neighbour did not send a blob", "from", src.name, "digest", desc.Digest, "error", err)
		}
	}
	// Neighbours that say they have it and do not send it are no reason to wait.
	return f.fetchFrom(ctx, registry, desc)
}
