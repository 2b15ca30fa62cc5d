package build

import "context"

// turn lets builds of one Image run one after another.
type turn struct {
	slot  chan struct{}
	users int
}

// takeTurn waits until no other build of key runs here, and then until the host
// has a place for one more build.
func (b *Builder) takeTurn(ctx context.Context, key string) (func(), error) {
	turn, err := b.takeKey(ctx, key)
	if err != nil {
		return nil, err
	}
	select {
	case b.slots <- struct{}{}:
		return func() { <-b.slots; turn() }, nil
	default:
	}
	b.log.Info("build waits: as many run as may", "image", key, "limit", cap(b.slots))
	select {
	case b.slots <- struct{}{}:
		return func() { <-b.slots; turn() }, nil
	case <-ctx.Done():
		turn()
		return nil, ctx.Err()
	}
}

// takeKey waits until no other build of key runs here.
func (b *Builder) takeKey(ctx context.Context, key string) (func(), error) {
	b.mu.Lock()
	t := b.turns[key]
	if t == nil {
		t = &turn{slot: make(chan struct{}, 1)}
		b.turns[key] = t
	}
	t.users++
	b.mu.Unlock()
	leave := func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		if t.users--; t.users == 0 {
			delete(b.turns, key)
		}
	}
	select {
	case t.slot <- struct{}{}:
		return func() { <-t.slot; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, ctx.Err()
	}
}
