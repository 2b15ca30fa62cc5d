package pod

import (
	"testing"
	"time"

	"lighter.dev/lighter/agent/runtime"
)

func TestNeverRan(t *testing.T) {
	now := time.Now()
	for name, tt := range map[string]struct {
		status runtime.Status
		want   bool
	}{
		"waits for its start":               {runtime.Status{State: runtime.StateCreated}, true},
		"no supervisor, no start":           {runtime.Status{State: runtime.StateUnknown, CreatedAt: now}, true},
		"ran until its supervisor was lost": {runtime.Status{State: runtime.StateUnknown, StartedAt: now}, false},
		"runs":                              {runtime.Status{State: runtime.StateRunning, StartedAt: now}, false},
		"the runtime refused it":            {runtime.Status{State: runtime.StateExited}, false},
		"has ended":                         {runtime.Status{State: runtime.StateExited, StartedAt: now}, false},
	} {
		if got := neverRan(tt.status); got != tt.want {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
	}
}
