package pod

import "time"

const (
	firstBackoff = 10 * time.Second
	maxBackoff   = 5 * time.Minute
	// healthyRun is how long a container has to run for its crashes to be forgiven.
	healthyRun = 10 * time.Minute

	firstRetry = 500 * time.Millisecond
	maxRetry   = 30 * time.Second
)

// Backoff is the pause before a crashed container is started again: none the
// first time, then 10 s, doubled up to 5 min.
type Backoff struct{ Delay time.Duration }

// after returns when a container that ran from start to end may start again.
func (b Backoff) after(start, end time.Time) time.Time {
	if end.Sub(start) >= healthyRun {
		return end
	}
	return end.Add(b.Delay)
}

// next is the pause after one more start.
func (b Backoff) next(start, end time.Time) Backoff {
	if b.Delay == 0 || end.Sub(start) >= healthyRun {
		return Backoff{firstBackoff}
	}
	return Backoff{min(2*b.Delay, maxBackoff)}
}

// backoffAt rebuilds the pause of the given attempt after a restart of the agent.
func backoffAt(attempt int) Backoff {
	b := Backoff{}
	for range min(attempt, 10) {
		b = b.next(time.Time{}, time.Time{})
	}
	return b
}

// fail notes an error and when to try again.
func (s *Step) fail(err error, now time.Time, first, limit time.Duration) {
	s.Done, s.Busy, s.Err = false, false, err
	s.Failures++
	delay := first
	for i := 1; i < s.Failures && delay < limit; i++ {
		delay *= 2
	}
	s.RetryAt = now.Add(min(delay, limit))
}

// succeed notes the end.
func (s *Step) succeed() { *s = Step{Done: true} }
