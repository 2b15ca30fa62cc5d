package runtime

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestGateOfAShortLife: a process that passes the gate and ends, all before the agent
// looks whether it lives, has been started.
func TestGateOfAShortLife(t *testing.T) {
	for name, c := range map[string]struct {
		passes bool
		want   error
	}{"passes and ends": {true, nil}, "ends at the gate": {false, errDiedBeforeStart}} {
		fifo := filepath.Join(t.TempDir(), "exec.fifo")
		if err := unix.Mkfifo(fifo, 0o600); err != nil {
			t.Fatal(err)
		}
		alive := func() bool {
			if c.passes {
				if err := os.WriteFile(fifo, []byte{'0'}, 0o600); err != nil {
					t.Error(err)
				}
			}
			return false
		}
		if err := runcGate(t.Context(), fifo, alive); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
