package runtime

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
)

// TestAttachBeforeStart: who attaches to a container that is only made misses
// nothing of what it prints, however soon it ends.
func TestAttachBeforeStart(t *testing.T) {
	runtimes(t, func(t *testing.T, h *host) {
		spec := h.spec("sh", "-c", "echo all of it")
		if err := h.engine.Create(t.Context(), spec); err != nil {
			t.Fatal(err)
		}
		short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if err := h.engine.WaitAttached(short, spec.ID); err == nil {
			t.Error("somebody has attached")
		}
		var out syncBuffer
		ended := make(chan error, 1)
		go func() { ended <- h.engine.Attach(t.Context(), spec.ID, AttachOptions{Stdout: &out}) }()
		if err := h.engine.WaitAttached(t.Context(), spec.ID); err != nil {
			t.Fatal(err)
		}
		if err := h.engine.Start(t.Context(), spec.ID); err != nil {
			t.Fatal(err)
		}
		if err := <-ended; err != nil || out.String() != "all of it\n" {
			t.Errorf("%q, %v", out.String(), err)
		}
	})
}

// TestNextAttempt: an attempt that ended lets go of its file system and keeps
// the rest; one that runs does not.
func TestNextAttempt(t *testing.T) {
	h := newHost(t, "runc")
	spec := h.spec("sh", "-c", "echo bye > /dev/termination-log; echo said; exec sleep 1000")
	id := h.start(spec)
	poll(t, "its last words", func() bool { return strings.Contains(h.output(spec), "said") })
	if err := h.engine.ReleaseRootFS(t.Context(), id); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("of a running container: %v", err)
	}
	if err := h.engine.Signal(t.Context(), id, 9); err != nil {
		t.Fatal(err)
	}
	before := h.waitFor(id, StateExited)
	for range 2 {
		if err := h.engine.ReleaseRootFS(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	for _, mount := range mountsBelow(t, h.dir) {
		if strings.Contains(mount, "/rootfs") {
			t.Errorf("mounted: %s", mount)
		}
	}
	if after, err := h.engine.Status(t.Context(), id); err != nil || after.ExitCode != before.ExitCode || after.Message != "bye\n" {
		t.Errorf("%+v, %v", after, err)
	}
}
