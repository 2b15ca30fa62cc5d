package keep

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"lighter.dev/lighter/agent/image/meettest"
)

// host is a World of one host: what it ensures it holds.
type host struct {
	view     View
	fail     error
	ensured  []Name
	at       []time.Duration // of each try, since began
	began    time.Time
	dropped  []Record
	looks    int
	fetching time.Duration
}

func newHost(view View) *host {
	view.Held, view.Used = map[digest.Digest]bool{}, map[digest.Digest]bool{}
	return &host{view: view, began: time.Now()}
}

func (h *host) View(context.Context) (View, error) {
	meettest.Meet()
	defer meettest.Meet()
	h.looks++
	view := h.view
	view.Records = slices.Clone(h.view.Records)
	return view, nil
}

func (h *host) Ensure(ctx context.Context, name Name) error {
	meettest.Meet()
	defer meettest.Meet()
	h.at = append(h.at, time.Since(h.began))
	pause(ctx, h.fetching)
	meettest.Meet()
	if h.fail != nil {
		return h.fail
	}
	h.ensured = append(h.ensured, name)
	h.view.Held[name.Digest] = true
	h.view.Records = append(h.view.Records, Record{Name: name})
	return nil
}

func (h *host) Drop(_ context.Context, records []Record) error {
	meettest.Meet()
	defer meettest.Meet()
	h.dropped = append(h.dropped, records...)
	h.view.Records = slices.DeleteFunc(h.view.Records, func(r Record) bool { return slices.Contains(records, r) })
	return nil
}

// start runs a Keeper until the test ends. Everything of the world may be changed
// while nothing runs, that is after synctest.Wait.
func start(t *testing.T, h *host) *Keeper {
	t.Helper()
	k := New(h, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- k.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	synctest.Wait()
	meettest.Meet()
	return k
}

// after lets time pass.
func after(d time.Duration) {
	meettest.Meet()
	<-time.After(d)
	synctest.Wait()
	meettest.Meet()
}

// missing is a view in which host b has to fetch an image of host a.
func missing() View {
	return View{Self: "b", Synced: true, Nodes: []string{"a", "b"}, Images: []Image{{Namespace: "team", Names: []string{shop, "shop:v1"}, Digest: d1, Node: "a"}}}
}

func TestFetches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(View{Self: "b", Synced: true, Nodes: []string{"a", "b"}})
		k := start(t, h)
		h.view.Images = missing().Images
		for range 100 { // one look for all of them
			k.Wake()
		}
		looks := h.looks
		after(2 * quiet)
		if want := []Name{{"team", shop, d1}, {"team", "shop:v1", d1}}; !slices.Equal(h.ensured, want) {
			t.Errorf("ensured %v, want %v", h.ensured, want)
		}
		if n := h.looks - looks; n > 6 {
			t.Errorf("%d looks for a hundred changes", n)
		}
		looks = h.looks
		after(time.Hour)
		if h.looks != looks {
			t.Errorf("%d looks though nothing changed", h.looks-looks)
		}
	})
}

func TestRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(missing())
		h.view.Images[0].Names = h.view.Images[0].Names[:1]
		h.fail = errors.New("the peer does not answer")
		start(t, h)
		after(10 * time.Second)
		if want := []time.Duration{0, time.Second, 3 * time.Second, 7 * time.Second}; !slices.Equal(h.at, want) {
			t.Errorf("tried after %v, want %v", h.at, want)
		}
		tries := len(h.at)
		after(time.Hour)
		if n := len(h.at) - tries; n < 10 || n > 20 {
			t.Errorf("%d tries in an hour", n)
		}
		h.fail = nil
		after(lastRetry)
		if len(h.ensured) != 1 {
			t.Errorf("ensured %v", h.ensured)
		}
	})
}

// TestStepsIn: a host fetches in place of one that comes before it and does not
// manage to, though nothing changes that would wake it.
func TestStepsIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		view := missing()
		view.Images[0].Names = view.Images[0].Names[:1]
		view.Nodes = []string{"a", "b", "c", "d"}
		view.Self = map[string]string{"b": "c", "c": "b", "d": "b"}[first(d1, "b", "c", "d")]
		h := newHost(view)
		start(t, h)
		after(patience - time.Second)
		if h.at != nil {
			t.Errorf("tried after %v, before the first host has had its time", h.at)
		}
		after(2*patience + 2*time.Second) // the last host's turn has come, too
		if len(h.ensured) != 1 {
			t.Errorf("ensured %v", h.ensured)
		}
	})
}

// TestGrace: records go some time after their Image, unless it comes back or a pod
// uses them.
func TestGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(missing())
		k := start(t, h)
		images := h.view.Images
		h.view.Images = nil
		k.Wake()
		after(grace - time.Second)
		h.view.Images = images
		k.Wake()
		after(time.Hour)
		if h.dropped != nil {
			t.Errorf("dropped %v though the Image came back", h.dropped)
		}
		h.view.Images, h.view.Used[d1] = nil, true
		k.Wake()
		after(time.Hour)
		if h.dropped != nil {
			t.Errorf("dropped %v though a container uses them", h.dropped)
		}
		delete(h.view.Used, d1)
		k.Wake()
		after(grace + 2*quiet)
		if len(h.dropped) != 2 || len(h.view.Records) != 0 {
			t.Errorf("dropped %v, left %v", h.dropped, h.view.Records)
		}
	})
}

// TestStopsInMidFetch: the end of ctx ends a fetch.
func TestStopsInMidFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(missing())
		h.fetching = time.Hour
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := New(h, slog.New(slog.DiscardHandler)).Run(ctx); err != nil || time.Since(began) > 2*time.Second {
			t.Errorf("%v after %s", err, time.Since(began))
		}
	})
}
