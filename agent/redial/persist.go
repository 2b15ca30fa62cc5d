package redial

import (
	"errors"
	"math/rand/v2"
	"net"
	"net/http"
	"time"
)

// Between two tries of Persist there is a pause that grows from the first to the second
// of these, and up to as much again at random: hosts do not come back all at once.
const (
	minPause = 50 * time.Millisecond
	maxPause = time.Second
)

// Persist returns a transport for informers: what they read waits until a server can
// be reached, or until its context ends. Left to themselves, they pause longer and
// longer while there is none (client-go: up to a minute), and a host would hear of
// nothing for so long after the server is back.
func Persist(next http.RoundTripper) http.RoundTripper { return persistent{next} }

type persistent struct{ next http.RoundTripper }

// RoundTrip implements http.RoundTripper. Only what nobody can have received is sent
// again.
func (p persistent) RoundTrip(request *http.Request) (*http.Response, error) {
	for pause := minPause; ; pause = min(2*pause, maxPause) {
		response, err := p.next.RoundTrip(request)
		if err == nil || request.Method != http.MethodGet || !unreachable(err) {
			return response, err
		}
		select {
		case <-request.Context().Done():
			return nil, err
		case <-time.After(pause + rand.N(pause)):
		}
	}
}

// unreachable tells whether no connection came about.
func unreachable(err error) bool {
	var failed *net.OpError
	return errors.As(err, &failed) && failed.Op == "dial"
}
