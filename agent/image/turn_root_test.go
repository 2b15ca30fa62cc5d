package image

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	corev1 "k8s.io/api/core/v1"

	"lighter.dev/lighter/api/rendezvous"
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
	for _, tt := range []struct{ hosts, layers int }{{4, 6}, {14, 1}} {
		t.Run(fmt.Sprint(tt.hosts, " hosts"), func(t *testing.T) {
			img := bigImage(t, tt.layers)
			reg := &fakeRegistry{image: img}
			srv := httptest.NewServer(reg)
			defer srv.Close()
			stores := town(t, tt.hosts, nil)
			prefer(stores, img.layers[0].Digest, 5)
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
		})
	}
}

// prefer lets those hosts come first that a hash of the blob puts last: were only
// some asked, it would not be them.
func prefer(stores []*Store, dgst digest.Digest, count int) {
	self := stores[1].cfg.Peers.(neighbours)[0]
	all := append(neighbours{self}, stores[0].cfg.Peers.(neighbours)...)
	ranked := slices.Clone(all)
	slices.SortFunc(ranked, func(a, b Peer) int { return rendezvous.Compare(dgst.String(), a.Name, b.Name) })
	for i, s := range stores {
		if slices.Index(ranked, all[i]) < len(all)-count {
			s.turns.clock = 100
		}
	}
}

// TestNeighboursOfMany: in a very large cluster all hosts ask the same ones.
func TestNeighboursOfMany(t *testing.T) {
	var all neighbours
	for i := range 2 * maxNeighbours {
		all = append(all, Peer{Name: fmt.Sprint("host-", i)})
	}
	d := digest.FromString("blob")
	asked := (&Store{cfg: Config{Peers: all}}).neighbours(t.Context(), d)
	if len(asked) != maxNeighbours {
		t.Fatalf("%d are asked, want %d", len(asked), maxNeighbours)
	}
	for i, self := range asked {
		others := (&Store{cfg: Config{Peers: slices.DeleteFunc(slices.Clone(all), func(p Peer) bool { return p == self })}}).neighbours(t.Context(), d)
		if !slices.Equal(others[:maxNeighbours-1], slices.Delete(slices.Clone(asked), i, i+1)) {
			t.Errorf("%s asks others than its neighbours do", self.Name)
		}
	}
}

// TestTurnOfLateHosts: hosts that were not there to be asked take what the first
// fetches already from it, whatever their numbers.
func TestTurnOfLateHosts(t *testing.T) {
	needRoot(t)
	img := bigImage(t, 3)
	begun, late := make(chan struct{}), make(chan struct{})
	var once sync.Once
	reg := &fakeRegistry{image: img, fault: func(_ http.ResponseWriter, r *http.Request, _ []byte) bool {
		if r.Method == http.MethodGet && slices.ContainsFunc(img.layers, func(l ocispec.Descriptor) bool { return strings.HasSuffix(r.URL.Path, l.Digest.String()) }) {
			once.Do(func() { close(begun) })
			<-late
		}
		return false
	}}
	srv := httptest.NewServer(reg)
	defer srv.Close()
	var asked atomic.Int32
	stores := town(t, 3, func(i int, h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if i == 0 && strings.Contains(r.URL.Path, "/turn/") && asked.Add(1) == 2*int32(len(img.layers)) {
				defer close(late) // both have asked about each layer
			}
			h.ServeHTTP(w, r)
		})
	})
	stores[0].cfg.Peers = neighbours{} // gossip has not told it of anybody
	stores[0].turns.clock = 100        // so that the late ones' numbers are lower
	ref := srv.Listener.Addr().String() + "/x:v1"
	var group sync.WaitGroup
	group.Go(func() { ensureAll(t, stores[:1], ref) })
	<-begun
	group.Go(func() { ensureAll(t, stores[1:], ref) })
	group.Wait()
	for i, layer := range img.layers {
		if n := reg.requests(layer.Digest); n != 1 {
			t.Errorf("layer %d was fetched %d times from the registry, want once", i, n)
		}
	}
}

// TestTurnOfSlowNeighbour: a host that fetches and is too busy to answer at once is
// asked again, and waited for.
func TestTurnOfSlowNeighbour(t *testing.T) {
	needRoot(t)
	img := bigImage(t, 1)
	layer := img.layers[0].Digest
	begun, again := make(chan struct{}), make(chan struct{})
	var once sync.Once
	reg := &fakeRegistry{image: img, fault: func(_ http.ResponseWriter, r *http.Request, _ []byte) bool {
		if r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, layer.String()) {
			once.Do(func() { close(begun) })
			select {
			case <-again:
			case <-r.Context().Done():
			}
		}
		return false
	}}
	srv := httptest.NewServer(reg)
	defer srv.Close()
	var asked atomic.Int32
	stores := town(t, 2, func(i int, h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if i == 0 && strings.Contains(r.URL.Path, "/turn/") {
				switch asked.Add(1) {
				case 1:
					<-r.Context().Done() // the neighbour has given up
					return
				case 2:
					defer close(again)
				}
			}
			h.ServeHTTP(w, r)
		})
	})
	ref := srv.Listener.Addr().String() + "/x:v1"
	var group sync.WaitGroup
	group.Go(func() { ensureAll(t, stores[:1], ref) })
	<-begun
	group.Go(func() { ensureAll(t, stores[1:], ref) })
	group.Wait()
	if n := reg.requests(layer); n != 1 {
		t.Errorf("the layer was fetched %d times from the registry, want once", n)
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
			if took := time.Since(start); took > time.Minute {
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
