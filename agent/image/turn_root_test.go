package image

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	corev1 "k8s.io/api/core/v1"
)

// neighbours are a PeerFinder for hosts that know one another and of no image.
type neighbours []Peer

func (n neighbours) Holders(context.Context, digest.Digest) []Peer { return nil }
func (n neighbours) Neighbours(context.Context) []Peer             { return n }

// town makes stores that are neighbours of one another, over TLS.
func town(t *testing.T, count int, wrap func(i int, h http.Handler) http.Handler) []*Store {
	t.Helper()
	ca := newAuthority(t)
	stores := make([]*Store, count)
	peers := make([]Peer, count)
	for i := range stores {
		stores[i] = open(t, func(c *Config) { c.TLS = ca.client(t, fmt.Sprint("host-", i)) })
		handler := stores[i].Handler()
		if wrap != nil {
			handler = wrap(i, handler)
		}
		peers[i] = ca.serve(t, handler)
	}
	for i, s := range stores {
		var others neighbours
		for j, p := range peers {
			if j != i {
				others = append(others, p)
			}
		}
		s.cfg.Peers = others
	}
	return stores
}

// bigImage has layers that are worth a turn.
func bigImage(t *testing.T, layers int) *fixture {
	t.Helper()
	var all []map[string]string
	for i := range layers {
		all = append(all, map[string]string{fmt.Sprint("file-", i): random(turnSize + 1000*i)})
	}
	return newFixture(t, all...)
}

// ensureAll has all stores pull at the same time.
func ensureAll(t *testing.T, stores []*Store, ref string) {
	t.Helper()
	var group sync.WaitGroup
	for _, s := range stores {
		group.Go(func() {
			if _, err := s.Ensure(context.Background(), Request{Namespace: "default", Ref: ref, Policy: corev1.PullIfNotPresent}); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
}

// TestTurns: however many hosts pull at once, each layer leaves the registry once.
func TestTurns(t *testing.T) {
	needRoot(t)
	img := bigImage(t, 6)
	reg := &fakeRegistry{image: img}
	srv := httptest.NewServer(reg)
	defer srv.Close()
	stores := town(t, 4, nil)
	ensureAll(t, stores, srv.Listener.Addr().String()+"/x:v1")
	for i, layer := range img.layers {
		if n := reg.requests(layer.Digest); n != 1 {
			t.Errorf("layer %d was fetched %d times from the registry, want once", i, n)
		}
	}
	for _, s := range stores {
		s.turns.mu.Lock()
		if len(s.turns.mine) != 0 {
			t.Errorf("%d turns were not given back", len(s.turns.mine))
		}
		s.turns.mu.Unlock()
	}
}

// TestTurnOfBrokenNeighbour: hosts that have the turn and fail, hang or answer
// nonsense keep nobody from the image for long.
func TestTurnOfBrokenNeighbour(t *testing.T) {
	needRoot(t)
	img := bigImage(t, 2)
	var asked atomic.Int32
	nonsense := func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if strings.Contains(r.URL.Path, "/turn/") {
			fmt.Fprint(w, turnHere)
			return
		}
		http.Error(w, "the disk is broken", http.StatusInternalServerError)
	}
	for name, broken := range map[string]http.HandlerFunc{
		"says it has the blob":   nonsense,
		"does not know the path": http.NotFound,
		"says something else":    func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "pardon?") },
	} {
		t.Run(name, func(t *testing.T) {
			reg := &fakeRegistry{image: img}
			srv := httptest.NewServer(reg)
			defer srv.Close()
			stores := town(t, 2, func(i int, h http.Handler) http.Handler {
				if i == 0 {
					return broken
				}
				return h
			})
			start := time.Now()
			ensureAll(t, stores[1:], srv.Listener.Addr().String()+"/x:v1")
			if took := time.Since(start); took > 20*time.Second {
				t.Errorf("it took %s", took)
			}
		})
	}
	if asked.Load() == 0 {
		t.Error("nobody was asked, so this test proves nothing")
	}
}

// TestTurnPasses: when the host that fetches fails, the next one does.
func TestTurnPasses(t *testing.T) {
	needRoot(t)
	img := bigImage(t, 1)
	layer := img.layers[0].Digest
	var failing atomic.Bool
	reg := &fakeRegistry{image: img, fault: func(w http.ResponseWriter, r *http.Request, _ []byte) bool {
		// The first host that comes for the layer is refused for good.
		if r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, layer.String()) && !failing.Swap(true) {
			http.Error(w, "", http.StatusForbidden)
			return true
		}
		return false
	}}
	srv := httptest.NewServer(reg)
	defer srv.Close()
	stores := town(t, 3, nil)
	var failed atomic.Int32
	var group sync.WaitGroup
	for _, s := range stores {
		group.Go(func() {
			if _, err := s.Ensure(context.Background(), Request{Namespace: "default", Ref: srv.Listener.Addr().String() + "/x:v1"}); err != nil {
				failed.Add(1)
			}
		})
	}
	group.Wait()
	if n := failed.Load(); n > 1 {
		t.Errorf("%d hosts failed, want at most the one that the registry refused", n)
	}
	if n := reg.requests(layer); n > 3 {
		t.Errorf("%d requests for the layer", n)
	}
}

func TestBefore(t *testing.T) {
	var mine turns
	d := digest.FromString("blob")
	if _, first := mine.before(d, 5<<turnTieBits); first {
		t.Error("a host that wants nothing stands in the way")
	}
	number, leave := mine.take(d)
	if number <= 5<<turnTieBits {
		t.Errorf("number %d comes before one that was heard of", number)
	}
	again, leaveAgain := mine.take(d)
	if again != number {
		t.Errorf("two numbers for one blob: %d, %d", number, again)
	}
	if _, first := mine.before(d, number-1); first {
		t.Error("a lower number has to wait")
	}
	over, first := mine.before(d, number+1)
	if !first {
		t.Fatal("a higher number does not wait")
	}
	leave()
	select {
	case <-over:
		t.Error("over while one of two still wants it")
	default:
	}
	leaveAgain()
	<-over
}
