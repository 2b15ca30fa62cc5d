package runtime

import (
	"os"
	"strings"
	"testing"
)

func TestRunToTheEnd(t *testing.T) {
	h := newHost(t, "runc")
	spec := h.spec("sh", "-c", "echo hello; echo oops >&2; echo last words >/dev/termination-log; exit 7")
	st, out := h.run(spec)
	if st.ExitCode != 7 || st.OOMKilled {
		t.Errorf("exit code %d, OOM %v; want 7, false", st.ExitCode, st.OOMKilled)
	}
	if !strings.Contains(out, "hello\n") || !strings.Contains(out, "oops\n") {
		t.Errorf("log %q", out)
	}
	if st.Message != "last words\n" {
		t.Errorf("termination message %q", st.Message)
	}
	if st.StartedAt.IsZero() || st.FinishedAt.Before(st.StartedAt) {
		t.Errorf("started %v, finished %v", st.StartedAt, st.FinishedAt)
	}
	if err := h.engine.Delete(t.Context(), spec.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(spec.LogPath); err != nil {
		t.Errorf("the log has to outlive the container: %v", err)
	}
}
