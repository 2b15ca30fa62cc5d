package keep

import "time"

const (
	firstRetry = time.Second
	lastRetry  = 5 * time.Minute
)

// retries remembers what failed, and until when it is let alone.
type retries map[Name]retry

type retry struct {
	at    time.Time
	pause time.Duration
}

// due is the first of names that may be tried now, or when one may be (zero if there
// is none).
func (r retries) due(names []Name, now time.Time) (name Name, ok bool, next time.Time) {
	for _, name := range names {
		at := r[name].at
		if !at.After(now) {
			return name, true, time.Time{}
		}
		if next.IsZero() || at.Before(next) {
			next = at
		}
	}
	return Name{}, false, next
}

func (r retries) failed(name Name, now time.Time) time.Duration {
	pause := min(max(2*r[name].pause, firstRetry), lastRetry)
	r[name] = retry{now.Add(pause), pause}
	return pause
}

// keep forgets all that is not wanted any more.
func (r retries) keep(names []Name) {
	wanted := map[Name]bool{}
	for _, name := range names {
		wanted[name] = true
	}
	for name := range r {
		if !wanted[name] {
			delete(r, name)
		}
	}
}
