package hostapi

import (
	"encoding/json"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"lighter.dev/lighter/api/agentapi"
)

// lineInterval is how often one blob's counts are told: a terminal shows no more.
const lineInterval = 100 * time.Millisecond

// lines is a stream of agentapi.Progress that begins with its first line.
type lines struct {
	w http.ResponseWriter

	mu    sync.Mutex
	begun bool
	last  map[string]told
}

// told is what was last told about one blob.
type told struct {
	status string
	at     time.Time
}

func newLines(w http.ResponseWriter) *lines { return &lines{w: w, last: map[string]told{}} }

// report writes a line, unless it only repeats the last one with another count
// and that one is young.
func (l *lines) report(p agentapi.Progress) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	last, known := l.last[p.ID]
	if known && last.status == p.Status && now.Sub(last.at) < lineInterval && (p.Total == 0 || p.Current < p.Total) {
		return
	}
	l.last[p.ID] = told{p.Status, now}
	l.write(p)
}

// end writes the last line, or the error as a whole if there was no line.
func (l *lines) end(result agentapi.Result, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case err == nil:
		l.write(agentapi.Progress{Done: &result})
	case l.begun:
		l.write(agentapi.Progress{Error: err.Error()})
	default:
		WriteError(l.w, err)
	}
}

// write sends one line at once. If the client is gone the request's context ends
// the work; here is nobody to tell.
func (l *lines) write(p agentapi.Progress) {
	if !l.begun {
		l.begun = true
		l.w.Header().Set("Content-Type", "application/json")
	}
	if json.NewEncoder(l.w).Encode(p) == nil {
		_ = http.NewResponseController(l.w).Flush()
	}
}

// body is a request's body that knows whether it was read to its end.
type body struct {
	io.Reader
	over atomic.Bool
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if err != nil {
		b.over.Store(true)
	}
	return n, err
}

func (b *body) ended() bool { return b.over.Load() }
