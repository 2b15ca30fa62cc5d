package reclaim

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"lighter.dev/lighter/agent/image/meettest"
)

// host is a World: a disk of 1000 bytes with images on it.
type host struct {
	images  []Image
	used    map[digest.Digest]bool
	other   int64 // bytes that are not images'
	cache   int64 // bytes of the build cache
	fail    error
	removed []string
	events  []string
	lists   int
}

func (h *host) Disk() (Disk, error) {
	meettest.Meet()
	free := 1000 - h.other - h.cache
	for _, img := range h.images {
		free -= img.Size
	}
	return Disk{1000, free}, nil
}

func (h *host) Used(context.Context) (map[digest.Digest]bool, error) {
	meettest.Meet()
	return maps.Clone(h.used), nil
}
func (h *host) Asked() map[digest.Digest]time.Time { return nil }

func (h *host) Images(context.Context) ([]Image, error) {
	meettest.Meet()
	defer meettest.Meet()
	h.lists++
	return slices.Clone(h.images), nil
}

func (h *host) Remove(_ context.Context, dgst digest.Digest) error {
	meettest.Meet()
	defer meettest.Meet()
	if h.fail != nil {
		return h.fail
	}
	h.images = slices.DeleteFunc(h.images, func(img Image) bool {
		if img.Digest == dgst {
			h.removed = append(h.removed, img.Names...)
		}
		return img.Digest == dgst
	})
	return nil
}

func (h *host) TrimCache(context.Context) error {
	meettest.Meet()
	defer meettest.Meet()
	h.cache /= 2
	return nil
}

func (h *host) Warn(reason, _ string) {
	meettest.Meet()
	defer meettest.Meet()
	h.events = append(h.events, reason)
}

func (h *host) add(name string, size int64) digest.Digest {
	img := Image{Digest: digest.FromString(name), Names: []string{name}, Size: size, Arrived: time.Now()}
	h.images = append(h.images, img)
	return img.Digest
}

// start runs a Reclaimer until the test ends or stop is called.
func start(t *testing.T, policy Policy, path string, h *host) (stop func()) {
	t.Helper()
	r, err := New(policy, path, h, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := r.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	synctest.Wait()
	meettest.Meet()
	return stop
}

// after lets time pass.
func after(d time.Duration) {
	meettest.Meet()
	<-time.After(d)
	synctest.Wait()
	meettest.Meet()
}

func TestMakesRoom(t *testing.T) {
	path := filepath.Join(t.TempDir(), "used.json")
	synctest.Test(t, func(t *testing.T) {
		h := &host{used: map[digest.Digest]bool{}, other: 200, cache: 40}
		oldest := h.add("oldest", 200)
		after(time.Minute)
		second := h.add("second", 200)
		after(time.Minute)
		h.add("third", 100)
		h.used[oldest], h.used[second] = true, true
		after(time.Hour)
		start(t, Policy{High: 85, Low: 70}, path, h)
		after(time.Hour)
		if len(h.removed) > 0 {
			t.Fatalf("removed %v from a disk that is 74%% full", h.removed)
		}
		delete(h.used, oldest) // used until now, so later than the third
		after(3 * time.Minute)
		h.other += 160
		after(time.Minute + glance)
		if want := []string{"third", "oldest"}; !slices.Equal(h.removed, want) || h.cache != 20 {
			t.Errorf("removed %v, want %v; build cache %d", h.removed, want, h.cache)
		}
		if h.events != nil {
			t.Errorf("events %v", h.events)
		}
	})
}

func TestCannotMakeRoom(t *testing.T) {
	path := filepath.Join(t.TempDir(), "used.json")
	synctest.Test(t, func(t *testing.T) {
		h := &host{used: map[digest.Digest]bool{}, other: 500}
		h.used[h.add("in use", 400)] = true
		start(t, Policy{High: 85, Low: 80}, path, h)
		after(time.Second)
		if !slices.Equal(h.events, []string{reasonFreeFailed}) {
			t.Errorf("events %v", h.events)
		}
		lists := h.lists
		after(10 * time.Minute)
		if n := h.lists - lists; n > 11 {
			t.Errorf("%d rounds in 10 minutes on a disk from which nothing can be removed", n)
		}
		if len(h.removed) > 0 {
			t.Errorf("removed %v", h.removed)
		}
		h.used, h.fail = nil, errors.New("the database is locked")
		h.events = nil
		after(5 * time.Minute)
		if !slices.Contains(h.events, reasonGCFailed) {
			t.Errorf("events %v after failures", h.events)
		}
	})
}

// TestAge: what nobody has used for long goes, whatever the disk; an agent that is
// started again does not forget what was used.
func TestAge(t *testing.T) {
	path := filepath.Join(t.TempDir(), "used.json")
	synctest.Test(t, func(t *testing.T) {
		h := &host{used: map[digest.Digest]bool{}}
		h.add("unused", 1)
		used := h.add("used", 1)
		h.used[used] = true
		policy := Policy{High: 85, Low: 80, MaxAge: 24 * time.Hour}
		stop := start(t, policy, path, h)
		after(20 * time.Hour)
		stop()
		h.used = nil
		start(t, policy, path, h)
		after(5 * time.Hour)
		if want := []string{"unused"}; !slices.Equal(h.removed, want) {
			t.Errorf("removed %v after a day, want %v", h.removed, want)
		}
		after(20 * time.Hour)
		if want := []string{"unused", "used"}; !slices.Equal(h.removed, want) {
			t.Errorf("removed %v a day after the last use, want %v", h.removed, want)
		}
	})
}

func TestDamagedFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "used.json")
	for _, content := range []string{"", "{", "null", `["x"]`} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		u, err := openUsage(path)
		if err != nil {
			t.Fatal(err)
		}
		u.note("sha256:x", time.Now())
		if err := u.save(); err != nil {
			t.Errorf("%q: %v", content, err)
		}
	}
}
