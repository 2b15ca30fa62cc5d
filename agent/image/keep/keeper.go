package keep

import (
	"context"
	"log/slog"
	"time"

	"github.com/opencontainers/go-digest"
)

// quiet is how long a Keeper lets things happen before it looks: a roll-out changes
// many objects at once.
const quiet = 300 * time.Millisecond

// World is what a Keeper sees and does.
type World interface {
	// View is what is so now, but for the time.
	View(ctx context.Context) (View, error)
	// Ensure makes a name and its content present on this host, from what is here or
	// from another host.
	Ensure(ctx context.Context, name Name) error
	// Drop removes records.
	Drop(ctx context.Context, records []Record) error
}

// Keeper does what decide finds for one host.
type Keeper struct {
	world World
	log   *slog.Logger
	wake  chan struct{}
	since map[Record]time.Time
	lacks map[digest.Digest]time.Time
	tries retries
}

// New makes a Keeper; see Run.
func New(world World, log *slog.Logger) *Keeper {
	return &Keeper{world: world, log: log, wake: make(chan struct{}, 1), since: map[Record]time.Time{}, lacks: map[digest.Digest]time.Time{}, tries: retries{}}
}

// Wake makes the Keeper look soon. Call it when something that View returns may have
// changed. It does not block.
func (k *Keeper) Wake() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// Run works until ctx ends.
func (k *Keeper) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-k.wake:
			if !pause(ctx, quiet) {
				return nil
			}
		}
		if next := k.turn(ctx); !next.IsZero() {
			timer.Reset(time.Until(next))
		}
	}
}

// turn acts until nothing can be done now, with a new look before each act: a fetch
// takes long. It returns when there will be something to do (zero if not known).
func (k *Keeper) turn(ctx context.Context) time.Time {
	for {
		view, err := k.world.View(ctx)
		if err != nil {
			if ctx.Err() == nil {
				k.log.Warn("images to keep are not known", "error", err)
			}
			return time.Now().Add(lastRetry)
		}
		view.Now, view.Lacking = time.Now(), k.lacks
		lacking(view, k.lacks)
		plan := decide(view)
		over, nextDrop := expired(plan.Gone, k.since, view.Now)
		if len(over) > 0 {
			nextDrop = k.drop(ctx, over)
		}
		todo := append(plan.Record, plan.Fetch...)
		k.tries.keep(todo)
		name, ok, nextTry := k.tries.due(todo, view.Now)
		if !ok {
			return earlier(plan.Next, earlier(nextDrop, nextTry))
		}
		if !k.ensure(ctx, name) {
			return time.Time{}
		}
	}
}

// ensure returns false if ctx has ended.
func (k *Keeper) ensure(ctx context.Context, name Name) bool {
	err := k.world.Ensure(ctx, name)
	switch {
	case ctx.Err() != nil:
		return false
	case err != nil:
		wait := k.tries.failed(name, time.Now())
		k.log.Warn("image not kept here yet", "image", name.Name, "namespace", name.Namespace, "digest", name.Digest, "again", wait, "error", err)
	default:
		// Should the next look still want it, it is not tried at once.
		k.tries.failed(name, time.Now())
		k.log.Info("image kept here", "image", name.Name, "namespace", name.Namespace, "digest", name.Digest)
	}
	return true
}

// drop returns when to try again, zero if there is no need.
func (k *Keeper) drop(ctx context.Context, records []Record) time.Time {
	if err := k.world.Drop(ctx, records); err != nil {
		k.log.Warn("records of deleted Images not removed", "error", err)
		return time.Now().Add(grace)
	}
	for _, rec := range records {
		k.log.Info("record of a deleted Image removed", "image", rec.Name.Name, "namespace", rec.Namespace, "digest", rec.Digest)
		delete(k.since, rec)
	}
	return time.Time{}
}

// earlier is the first of two times that are not zero.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// pause returns false if ctx ended before.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
