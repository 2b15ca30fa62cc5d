package image

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestFlightsAreShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g flightGroup
		var runs atomic.Int32
		var seen atomic.Int64
		work := func(ctx context.Context, f *flight) (Image, error) {
			runs.Add(1)
			f.report(Progress{Done: 1, Total: 2})
			time.Sleep(time.Second)
			return Image{Name: "x"}, nil
		}
		var wg sync.WaitGroup
		for range 5 {
			wg.Go(func() {
				img, err := g.do(t.Context(), "k", func(p Progress) { seen.Add(p.Done) }, work)
				if err != nil || img.Name != "x" {
					t.Errorf("got %v, %v", img, err)
				}
			})
		}
		wg.Wait()
		if runs.Load() != 1 || seen.Load() != 5 {
			t.Errorf("work ran %d times and %d callers saw progress, want 1 and 5", runs.Load(), seen.Load())
		}
	})
}

func TestFlightEndsWithItsLastCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g flightGroup
		var cancelled atomic.Bool
		work := func(ctx context.Context, _ *flight) (Image, error) {
			<-ctx.Done()
			time.Sleep(time.Second) // clean-up
			cancelled.Store(true)
			return Image{}, ctx.Err()
		}
		first, cancelFirst := context.WithCancel(t.Context())
		second, cancelSecond := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for _, ctx := range []context.Context{first, second} {
			wg.Go(func() {
				if _, err := g.do(ctx, "k", nil, work); !errors.Is(err, context.Canceled) {
					t.Errorf("error %v", err)
				}
			})
		}
		synctest.Wait()
		cancelFirst()
		synctest.Wait()
		if cancelled.Load() {
			t.Error("cancelled though one caller waits")
		}
		cancelSecond()
		wg.Wait()
		if !cancelled.Load() {
			t.Error("the last caller returned before the work had cleaned up")
		}
	})
}

func TestKeyedLock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var k keyedLock
		if err := k.Lock(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		if err := k.Lock(t.Context(), "b"); err != nil {
			t.Fatal(err)
		}
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := k.Lock(short, "a"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
		k.Unlock("a")
		if err := k.Lock(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		k.Unlock("a")
		k.Unlock("b")
		if len(k.held) != 0 {
			t.Errorf("%d keys are left", len(k.held))
		}
	})
}

func TestBroadcast(t *testing.T) {
	var b broadcast
	b.notify() // nobody waits
	a, c := b.next(), b.next()
	b.notify()
	<-a
	<-c
	select {
	case <-b.next():
		t.Error("an old change was told again")
	default:
	}
}
