package main

import (
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestTide(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var set []int
		tide := &tide{set: func(percent int) int { set = append(set, percent); return 0 }}
		expect := func(when string, want ...int) {
			t.Helper()
			synctest.Wait()
			if !slices.Equal(set, want) {
				t.Errorf("%s: set %v, want %v", when, set, want)
			}
			set = nil
		}
		collectAfter := func(pause time.Duration) {
			time.Sleep(pause)
			tide.collected(time.Now())
		}
		collectAfter(0)
		collectAfter(2 * burstGap)
		expect("collections far apart")
		collectAfter(burstGap / 2)
		expect("a burst begins", busyPercent)
		for range 10 {
			collectAfter(calm / 2)
		}
		expect("it goes on")
		time.Sleep(calm + time.Millisecond)
		expect("it is over", thriftyPercent)
		collectAfter(0)
		expect("the collection that follows")
		collectAfter(burstGap / 2)
		expect("another burst", busyPercent)
		time.Sleep(calm + time.Millisecond)
		expect("it is over too", thriftyPercent)
	})
}

// TestTideSeesCollections checks that the runtime tells of each collection.
func TestTideSeesCollections(t *testing.T) {
	set := make(chan int, 10)
	tide := &tide{set: func(percent int) int { set <- percent; return 0 }}
	tide.begin()
	if got := <-set; got != thriftyPercent {
		t.Fatalf("began with %d", got)
	}
	deadline := time.After(30 * time.Second)
	for {
		runtime.GC()
		select {
		case got := <-set:
			if got != busyPercent {
				t.Errorf("set %d after two collections, want %d", got, busyPercent)
			}
			return
		case <-deadline:
			t.Fatal("collections are not seen")
		default:
		}
	}
}
