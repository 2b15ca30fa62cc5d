package runtime

import (
	"testing"
	"time"
)

// BenchmarkPod is what a one-container pod costs the engine: namespaces, cgroup,
// create and start, and its removal.
func BenchmarkPod(b *testing.B) {
	for _, name := range []string{"runc", "crun"} {
		b.Run(name, func(b *testing.B) {
			if name == "crun" && inCrunView(b) {
				return
			}
			h := newHost(b, name)
			var pin, create, start, remove time.Duration
			for b.Loop() {
				t0 := time.Now()
				spec := h.spec("sleep", "1000")
				t1 := time.Now()
				if err := h.engine.Create(b.Context(), spec); err != nil {
					b.Fatal(err)
				}
				t2 := time.Now()
				if err := h.engine.Start(b.Context(), spec.ID); err != nil {
					b.Fatal(err)
				}
				t3 := time.Now()
				if err := h.engine.Delete(b.Context(), spec.ID); err != nil {
					b.Fatal(err)
				}
				pin, create, start, remove = pin+t1.Sub(t0), create+t2.Sub(t1), start+t3.Sub(t2), remove+time.Since(t3)
			}
			report := func(d time.Duration, unit string) {
				b.ReportMetric(float64(d.Microseconds())/1000/float64(b.N), unit)
			}
			report(pin, "ms-pin+cgroup/op")
			report(create, "ms-create/op")
			report(start, "ms-start/op")
			report(remove, "ms-delete/op")
		})
	}
}

// BenchmarkExec is what an exec probe costs.
func BenchmarkExec(b *testing.B) {
	h := newHost(b, "runc")
	id := h.start(h.spec("sleep", "1000"))
	for b.Loop() {
		if _, _, code, err := h.engine.ExecSync(b.Context(), id, []string{"true"}, 0); err != nil || code != 0 {
			b.Fatal(code, err)
		}
	}
}
