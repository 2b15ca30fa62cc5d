package runtime

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
)

// TestFurtherRuntime: a container gets the OCI runtime that it asks for, from its
// creation to its end, also by an agent that has started again; and one whose runtime
// is not configured any more can still be stopped and deleted.
func TestFurtherRuntime(t *testing.T) {
	h := newHost(t, "runc")
	program, calls := filepath.Join(h.dir, "recorder"), filepath.Join(h.dir, "calls")
	runc, err := exec.LookPath("runc")
	if err != nil {
		t.Fatal(err)
	}
	// The loader of a container's first process is runc itself, by its own path.
	script := fmt.Sprintf("#!/bin/sh\necho \"$@\" >> %s\nexec %s \"$@\"\n", calls, runc)
	if err := os.WriteFile(program, []byte(script), 0o755); err != nil { //nolint:gosec // it is a program
		t.Fatal(err)
	}
	called := func() string {
		t.Helper()
		raw, err := os.ReadFile(calls)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		return string(raw)
	}
	h.cfg.Runtimes = map[string]string{"recorder": program}
	h.second()
	plain, asks := h.spec("sleep", "1000"), h.spec("sleep", "1000")
	asks.Runtime = "recorder"
	h.start(plain)
	h.start(asks)
	h.second()
	for _, id := range []string{plain.ID, asks.ID} {
		if out, _, code, err := h.engine.ExecSync(t.Context(), id, []string{"echo", "inside"}, time.Minute); string(out) != "inside\n" || code != 0 || err != nil {
			t.Errorf("exec: %q, %d, %v", out, code, err)
		}
	}
	log := called()
	if strings.Contains(log, plain.ID) || !strings.Contains(log, "create") || !strings.Contains(log, "exec") || !strings.Contains(log, asks.ID) {
		t.Errorf("it was called with\n%s", log)
	}

	unknown := h.spec("sleep", "1000")
	unknown.Runtime = "kata"
	if err := h.engine.Create(t.Context(), unknown); !errdefs.IsNotFound(err) || !strings.Contains(err.Error(), `no OCI runtime "kata" (has recorder)`) {
		t.Errorf("an unknown one: %v", err)
	}
	h.cfg.Runtimes = nil
	h.second()
	if err := h.engine.Signal(t.Context(), asks.ID, 9); err != nil {
		t.Error(err)
	}
	if st := h.waitFor(asks.ID, StateExited); st.ExitCode != 137 {
		t.Errorf("exit code %d", st.ExitCode)
	}
}

// TestFurtherRuntimeThatFails: the agent does not start, and says which it is.
func TestFurtherRuntimeThatFails(t *testing.T) {
	h := newHost(t, "runc")
	for _, program := range []string{filepath.Join(h.dir, "missing"), "/bin/false"} {
		cfg := h.cfg
		cfg.Runtimes = map[string]string{"bad": program}
		if _, err := New(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "OCI runtime bad ("+program+") does not work on this host") {
			t.Errorf("%s: %v", program, err)
		}
	}
}
