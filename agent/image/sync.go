package image

import (
	"context"
	"sync"
)

// broadcast tells any number of waiters that something changed.
type broadcast struct {
	mu sync.Mutex
	ch chan struct{}
}

// next is closed at the next call of notify.
func (b *broadcast) next() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ch == nil {
		b.ch = make(chan struct{})
	}
	return b.ch
}

func (b *broadcast) notify() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ch != nil {
		close(b.ch)
		b.ch = nil
	}
}

// keyedLock is a mutex per key that gives up with its context. It has the
// shape of unpack.KeyedLocker, so that two pulls never write one blob.
type keyedLock struct {
	mu   sync.Mutex
	held map[string]*keyState
}

type keyState struct {
	slot  chan struct{}
	users int
}

// Lock waits for key until ctx ends.
func (k *keyedLock) Lock(ctx context.Context, key string) error {
	k.mu.Lock()
	if k.held == nil {
		k.held = map[string]*keyState{}
	}
	st := k.held[key]
	if st == nil {
		st = &keyState{slot: make(chan struct{}, 1)}
		k.held[key] = st
	}
	st.users++
	k.mu.Unlock()
	select {
	case st.slot <- struct{}{}:
		return nil
	case <-ctx.Done():
		k.release(key, st)
		return ctx.Err()
	}
}

// Unlock lets the next one have key.
func (k *keyedLock) Unlock(key string) {
	k.mu.Lock()
	st := k.held[key]
	k.mu.Unlock()
	<-st.slot
	k.release(key, st)
}

func (k *keyedLock) release(key string, st *keyState) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if st.users--; st.users == 0 {
		delete(k.held, key)
	}
}

// flightGroup joins callers that want the same image: one does the work, all
// get the result, and the work is cancelled when the last caller gave up.
type flightGroup struct {
	mu  sync.Mutex
	all map[string]*flight
}

type flight struct {
	cancel  context.CancelFunc
	done    chan struct{}
	waiting int
	img     Image
	err     error

	mu       sync.Mutex
	watchers []func(Progress)
	last     Progress
}

// report passes progress on to every caller of the flight.
func (f *flight) report(p Progress) {
	f.mu.Lock()
	f.last = p
	watchers := f.watchers
	f.mu.Unlock()
	for _, w := range watchers {
		w(p)
	}
}

func (f *flight) watch(w func(Progress)) {
	if w == nil {
		return
	}
	f.mu.Lock()
	f.watchers = append(f.watchers[:len(f.watchers):len(f.watchers)], w)
	last := f.last
	f.mu.Unlock()
	if last != (Progress{}) {
		w(last)
	}
}

func (g *flightGroup) do(ctx context.Context, key string, progress func(Progress), work func(context.Context, *flight) (Image, error)) (Image, error) {
	for {
		f := g.join(ctx, key, work)
		f.watch(progress)
		select {
		case <-f.done:
			if f.err != nil && ctx.Err() == nil && isCancelled(f.err) {
				continue // joined a flight whose last caller had just left
			}
			return f.img, f.err
		case <-ctx.Done():
			g.leave(key, f)
			return Image{}, ctx.Err()
		}
	}
}

func (g *flightGroup) join(ctx context.Context, key string, work func(context.Context, *flight) (Image, error)) *flight {
	g.mu.Lock()
	defer g.mu.Unlock()
	if f := g.all[key]; f != nil {
		f.waiting++
		return f
	}
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	f := &flight{cancel: cancel, done: make(chan struct{}), waiting: 1}
	if g.all == nil {
		g.all = map[string]*flight{}
	}
	g.all[key] = f
	go func() {
		defer cancel()
		f.img, f.err = work(run, f)
		g.mu.Lock()
		if g.all[key] == f {
			delete(g.all, key)
		}
		g.mu.Unlock()
		close(f.done)
	}()
	return f
}

// leave cancels the flight and waits for its clean-up if nobody else waits.
func (g *flightGroup) leave(key string, f *flight) {
	g.mu.Lock()
	f.waiting--
	last := f.waiting == 0
	if last && g.all[key] == f {
		delete(g.all, key)
	}
	g.mu.Unlock()
	if last {
		f.cancel()
		<-f.done
	}
}
