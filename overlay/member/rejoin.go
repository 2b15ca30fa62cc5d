package member

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Back-off between attempts to reach those who should be there but are not.
const (
	firstPause = 500 * time.Millisecond
	lastPause  = 5 * time.Second
	// perRound bounds how many addresses one attempt tries, so that many lost
	// hosts do not keep it from the one that came back.
	perRound = 8
)

// Join adds seeds ("host" or "host:port", underlay addresses) and returns when
// the first of them answered, or with the last error when ctx ends. Contact to
// seeds and lost peers is kept up from then on, whatever Join returned: a
// partition heals without a restart. Without seeds there is nothing to wait for.
func (m *Members) Join(ctx context.Context, seeds []string) error {
	m.mu.Lock()
	for _, s := range seeds {
		if _, _, err := net.SplitHostPort(s); err != nil {
			s = net.JoinHostPort(s, strconv.Itoa(m.cfg.Port))
		}
		if !slices.Contains(m.seeds, s) && s != m.Addr().String() {
			m.seeds = append(m.seeds, s)
		}
	}
	m.mu.Unlock()
	defer m.wake()
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		absent := m.absent()
		if len(absent) == 0 || len(m.Reachable()) > 0 {
			return nil
		}
		n, err := m.list.Join(absent)
		if n > 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("member: join %v: %w", seeds, fmt.Errorf("%w; %w", ctx.Err(), oneLine(err)))
		case <-m.stop:
			return errors.New("member: join: shut down")
		case <-time.After(pause):
		}
	}
}

// Reachable names the nodes that answer, whether their claims count or not.
func (m *Members) Reachable() []string {
	m.events.mu.Lock()
	defer m.events.mu.Unlock()
	var out []string
	for name := range m.events.alive {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

// Lost tells whether a node answered once and does not now. One that has not been
// heard of may be about to answer: right after a start nobody has.
func (m *Members) Lost(node string) bool {
	m.events.mu.Lock()
	defer m.events.mu.Unlock()
	_, alive := m.events.alive[node]
	_, seen := m.events.seen[node]
	return seen && !alive
}

// absent are addresses of seeds and of nodes seen before that do not answer now,
// in random order and not too many. A node that was seen and whose claim does
// not count any more (its Node object is gone) is not looked for.
func (m *Members) absent() []string {
	here, lost := m.events.census()
	var out []string
	for _, n := range lost {
		if claim, err := decode(n.Meta); err == nil && m.cfg.Verifier.Verify(claim) == nil {
			out = append(out, n.Address())
		}
	}
	m.mu.Lock()
	for _, s := range m.seeds {
		if !here[s] && !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	m.mu.Unlock()
	rand.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out[:min(len(out), perRound)]
}

// rejoinLoop tries the absent, with back-off while none answers. memberlist
// itself gives a dead node up after half a minute.
func (m *Members) rejoinLoop() {
	pause := firstPause
	timer := time.NewTimer(pause)
	defer timer.Stop()
	for {
		select {
		case <-m.stop:
			return
		case <-m.nudge:
			pause = firstPause
		case <-timer.C:
		}
		if absent := m.absent(); len(absent) > 0 {
			n, _ := m.list.Join(absent) // memberlist logs each failure
			if n > 0 {
				pause = firstPause
			} else {
				pause = min(2*pause, lastPause)
			}
		} else {
			pause = firstPause
		}
		timer.Reset(pause + rand.N(pause/4))
	}
}

func (m *Members) wake() {
	select {
	case m.nudge <- struct{}{}:
	default:
	}
}

// oneLine flattens memberlist's list of errors, which is made for a terminal.
func oneLine(err error) error {
	list, ok := err.(interface{ WrappedErrors() []error })
	if !ok {
		return err
	}
	var texts []string
	for _, e := range list.WrappedErrors() {
		texts = append(texts, e.Error())
	}
	return errors.New(strings.Join(texts, "; "))
}
