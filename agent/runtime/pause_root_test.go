package runtime

import (
	"os"
	"testing"
	"time"

	"github.com/containerd/errdefs"
)

// TestPause: a paused container does nothing until it is resumed, by this agent or
// by the next one, and can be deleted meanwhile.
func TestPause(t *testing.T) {
	runtimes(t, func(t *testing.T, h *host) {
		spec := h.spec("sh", "-c", "while :; do echo x; sleep 0.01; done")
		h.start(spec)
		printed := func() int64 {
			st, err := os.Stat(spec.LogPath)
			if err != nil {
				return 0
			}
			return st.Size()
		}
		goesOn := func() {
			before := printed()
			poll(t, "the container to go on", func() bool { return printed() > before })
		}
		goesOn()
		pause := func() {
			if err := h.engine.Pause(t.Context(), spec.ID); err != nil {
				t.Fatal(err)
			}
			stands(t, printed)
		}
		pause()
		for range 2 { // the second time there is nothing to do
			if err := h.engine.Resume(t.Context(), spec.ID); err != nil {
				t.Fatal(err)
			}
		}
		goesOn()
		pause()
		h.second()
		goesOn()
		pause()
		if err := h.engine.Delete(t.Context(), spec.ID); err != nil {
			t.Fatalf("delete of a paused container: %v", err)
		}
		if err := h.engine.Resume(t.Context(), spec.ID); err != nil {
			t.Errorf("resume of a container that is gone: %v", err)
		}
		ended := h.spec("true")
		h.waitFor(h.start(ended), StateExited)
		if err := h.engine.Pause(t.Context(), ended.ID); !errdefs.IsFailedPrecondition(err) {
			t.Errorf("pause of an ended container: %v", err)
		}
	})
}

// stands waits until conmon has written what was on its way, then sees that
// nothing more comes.
func stands(t *testing.T, printed func() int64) {
	t.Helper()
	var last int64
	since := time.Now()
	poll(t, "the container to stand still", func() bool {
		if now := printed(); now != last {
			last, since = now, time.Now()
		}
		return time.Since(since) > 300*time.Millisecond
	})
}
