package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"time"
)

const (
	// thriftyPercent is GOGC in quiet times: the daemons are mostly idle, and a
	// host's memory belongs to its containers.
	thriftyPercent = 50
	// busyPercent is GOGC in a burst of work. At thriftyPercent the collector took
	// a fifth of the CPU while a hundred pods started; memory that is in use for
	// some seconds is the better bargain.
	busyPercent = 200
	// burstGap is how soon after one another collections show a burst, calm how
	// long none has to follow for it to be over.
	burstGap = 500 * time.Millisecond
	calm     = 5 * time.Second
)

// tuneMemory adapts the garbage collector to the work. GOGC overrides it.
func tuneMemory() {
	if os.Getenv("GOGC") != "" {
		return
	}
	(&tide{set: debug.SetGCPercent}).begin()
}

// tide switches between the two percentages. It needs no clock of its own while
// nothing happens: each collection wakes it.
type tide struct {
	set func(percent int) int

	mu      sync.Mutex
	last    time.Time // of the last collection
	busy    bool
	subside *time.Timer
}

func (t *tide) begin() {
	t.set(thriftyPercent)
	t.watch()
}

// watch calls collected at the end of the next collection: that is when the
// cleanup of an object that nobody holds runs.
func (t *tide) watch() {
	sentinel := new([16]byte) // big enough not to share its memory with others
	runtime.AddCleanup(sentinel, func(*tide) {
		t.collected(time.Now())
		t.watch()
	}, nil)
}

// collected takes note of a collection.
func (t *tide) collected(now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	burst := now.Sub(t.last) < burstGap
	t.last = now
	switch {
	case t.busy:
		t.subside.Reset(calm)
	case burst:
		t.busy = true
		t.set(busyPercent)
		t.subside = time.AfterFunc(calm, t.calmed)
	}
}

// calmed is called when no collection has followed for a while.
func (t *tide) calmed() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.busy = false
	t.last = time.Time{} // the collection that this brings about is no burst
	t.set(thriftyPercent)
}
