package redial

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

// outage fails until its end.
type outage struct {
	until time.Time
	err   error
	tries int
}

func (o *outage) RoundTrip(*http.Request) (*http.Response, error) {
	o.tries++
	if time.Now().Before(o.until) {
		return nil, o.err
	}
	return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody}, nil
}

func TestPersist(t *testing.T) {
	refused := &net.OpError{Op: "dial", Err: errors.New("connection refused")}
	for _, test := range []struct {
		name, method string
		err          error
		patience     time.Duration // 0: for ever
		lasts        bool          // until the outage ends
	}{
		{"a read", http.MethodGet, refused, 0, true},
		{"a write", http.MethodPost, refused, 0, false},
		{"a connection that was lost", http.MethodGet, io.ErrUnexpectedEOF, 0, false},
		{"a read that is given up", http.MethodGet, refused, 10 * time.Second, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const length = time.Minute
				start := time.Now()
				server := &outage{until: start.Add(length), err: test.err}
				ctx := t.Context()
				if test.patience > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, test.patience)
					defer cancel()
				}
				request, err := http.NewRequestWithContext(ctx, test.method, "https://server/api/v1/pods", http.NoBody)
				if err != nil {
					t.Fatal(err)
				}
				response, err := Persist(server).RoundTrip(request)
				took := time.Since(start)
				if !test.lasts {
					if !errors.Is(err, test.err) || took != test.patience {
						t.Errorf("%v after %s", err, took)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				if err := response.Body.Close(); err != nil {
					t.Error(err)
				}
				if took < length || took > length+2*maxPause {
					t.Errorf("answered after %s, the outage was %s", took, length)
				}
				if server.tries < 30 || server.tries > 70 {
					t.Errorf("%d tries", server.tries)
				}
			})
		})
	}
}
