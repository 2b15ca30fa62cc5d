package image

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"
)

func TestTurn(t *testing.T) {
	var all turns
	d := digest.FromString("blob")
	if _, first := all.before(d, 5<<turnTieBits); first {
		t.Error("a host that wants nothing stands in the way")
	}
	mine := all.take(d)
	number, passed := mine.look()
	if number <= 5<<turnTieBits {
		t.Errorf("number %d comes before one that was heard of", number)
	}
	again := all.take(d)
	if again != mine {
		t.Error("two turns for one blob")
	}
	over, first := all.before(d, number+1)
	if !first {
		t.Fatal("a higher number does not wait")
	}
	if _, first := all.before(d, number-1); first {
		t.Error("a lower number has to wait")
	}
	if mine.enter(passed) {
		t.Error("it enters though somebody was let past while it asked")
	}
	if _, passed = mine.look(); !mine.enter(passed) {
		t.Fatal("it cannot enter after a second round")
	}
	if _, first := all.before(d, number-1); !first {
		t.Error("a lower number may fetch beside it")
	}
	mine.exit(true)
	if later, _ := mine.look(); later <= number {
		t.Errorf("number %d after a failure, want one above %d", later, number)
	}
	again.leave()
	select {
	case <-over:
		t.Error("over while one of two still wants it")
	default:
	}
	mine.leave()
	<-over
	if len(all.mine) != 0 {
		t.Error("the turn was not given back")
	}
}

// walker is one host in a simulated run of the protocol: each step is one thing that
// happens at one moment, so a schedule of steps is an order of events.
type walker struct {
	all     *turns
	booted  bool
	has     bool
	mine    *turn
	number  uint64
	passed  uint64
	next    int // the neighbour to ask
	wait    bool
	here    bool
	inside  bool
	fetched int
}

// simulate runs hosts through a schedule, which names who makes the next step, and
// after it all hosts until each has the blob. Hosts that are not up cannot be asked.
func simulate(t *testing.T, hosts int, numbers []uint64, schedule []int) (fetches int) {
	t.Helper()
	d := digest.FromString("blob")
	town := make([]*walker, hosts)
	for i := range town {
		town[i] = &walker{all: &turns{clock: numbers[i]}}
	}
	for _, i := range schedule {
		town[i].step(i, town, d)
	}
	for round := 0; slices.ContainsFunc(town, func(w *walker) bool { return !w.has }); round++ {
		if round > 1000 {
			t.Fatalf("numbers %v, schedule %v: the hosts wait for one another", numbers, schedule)
		}
		for i, w := range town {
			w.step(i, town, d)
		}
	}
	for _, w := range town {
		fetches += w.fetched
	}
	return fetches
}

func (w *walker) step(self int, town []*walker, d digest.Digest) {
	switch {
	case w.has:
	case !w.booted:
		w.booted = true
	case w.mine == nil:
		w.mine = w.all.take(d)
		w.begin()
	case w.inside:
		w.fetched, w.has = w.fetched+1, true
		w.mine.exit(false)
		w.mine.leave()
	case w.next == self:
		w.next++
	case w.next < len(town):
		if other := town[w.next]; other.booted {
			_, first := other.all.before(d, w.number)
			w.here, w.wait = w.here || other.has, w.wait || first
		}
		w.next++
	case w.here:
		w.has = true
		w.mine.leave()
	case !w.wait && w.mine.enter(w.passed):
		w.inside = true
	default:
		w.begin()
	}
}

func (w *walker) begin() {
	w.number, w.passed = w.mine.look()
	w.next, w.wait, w.here = 0, false, false
}

// TestTurnsInEveryOrder: one of two hosts fetches, in whatever order they start, ask
// and answer, and whoever has the lower number.
func TestTurnsInEveryOrder(t *testing.T) {
	const steps = 9 // of each host until it has the blob, if nothing holds it up
	schedule := make([]int, 0, 2*steps)
	var all func(left, right int)
	all = func(left, right int) {
		if left == 0 && right == 0 {
			for _, numbers := range [][]uint64{{0, 9}, {9, 0}, {0, 0}} {
				if n := simulate(t, 2, numbers, schedule); n != 1 {
					t.Fatalf("numbers %v, schedule %v: %d hosts fetched", numbers, schedule, n)
				}
			}
			return
		}
		for who, rest := range []int{left, right} {
			if rest == 0 {
				continue
			}
			schedule = append(schedule, who)
			all(left-1+who, right-who)
			schedule = schedule[:len(schedule)-1]
		}
	}
	all(steps, steps)
}

// TestTurnsOfMany: the same for more hosts, in many orders.
func TestTurnsOfMany(t *testing.T) {
	for seed := range uint64(20_000) {
		r := rand.New(rand.NewPCG(seed, 1))
		hosts := 3 + r.IntN(3)
		numbers, schedule := make([]uint64, hosts), make([]int, hosts*15)
		for i := range numbers {
			numbers[i] = r.Uint64N(3)
		}
		for i := range schedule {
			schedule[i] = r.IntN(hosts)
		}
		if n := simulate(t, hosts, numbers, schedule); n != 1 {
			t.Fatalf("seed %d, numbers %v, schedule %v: %d hosts fetched", seed, numbers, schedule, n)
		}
	}
}
