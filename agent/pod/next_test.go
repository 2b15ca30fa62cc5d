package pod

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"

	"lighter.dev/lighter/agent/image"
	"lighter.dev/lighter/agent/runtime"
)

// TestWaitNeverEndsAtOnce: when Next says Wait, it has nothing to do now, so
// the moment it names lies ahead. Else the worker would spin for as long as a
// pull or a mount takes.
func TestWaitNeverEndsAtOnce(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	past, future := now.Add(-time.Second), now.Add(time.Second)
	moments := []time.Time{{}, past, now, future}
	var steps []Step
	for _, at := range moments {
		steps = append(steps, Step{RetryAt: at}, Step{Busy: true, RetryAt: at})
	}
	steps = append(steps, Step{Done: true}, Step{Done: true, Busy: true})
	attempts := []*Attempt{
		nil,
		{runtime.Status{State: runtime.StateRunning}},
		{runtime.Status{State: runtime.StateExited, ExitCode: 1, StartedAt: past, FinishedAt: past}},
	}
	checked := 0
	check := func(v View, s *State) {
		checked++
		if a := Next(v, s, now); a.Do == Wait && !a.Until.IsZero() && !a.Until.After(now) {
			c := s.Containers[0]
			t.Errorf("wait until %v: volumes %+v due %v, image %+v, op %q, start %+v", a.Until.Sub(now), *s.Hooks[hookVolumes], s.VolumesDue, c.Image, c.Op, c.Start)
		}
	}
	for _, deleted := range []bool{false, true} {
		pod := onePod()
		pod.Spec.RestartPolicy = corev1.RestartPolicyAlways
		for _, volumes := range steps {
			for _, due := range moments {
				for _, pull := range steps {
					for _, op := range []Op{Idle, Pulling, Starting} {
						for i, retry := range moments {
							c := &Container{Spec: &pod.Spec.Containers[0], Op: op, Image: pull, Start: Step{RetryAt: retry}, Current: attempts[i%len(attempts)]}
							done, mount, td := Step{Done: true}, volumes, volumes
							check(View{Pod: pod, Gone: deleted}, &State{
								Hooks:      map[string]*Step{hookCgroup: &done, hookNetwork: &done, hookVolumes: &mount},
								VolumesDue: due, Containers: []*Container{c}, Teardown: td,
							})
						}
					}
				}
			}
		}
	}
	t.Log(checked, "states")
}

// TestRestartWaitsForItsImage: a container that may restart at once, but whose
// image is away, is tried again when the pull is due. In a bubble a worker that
// spins would stop the clock.
func TestRestartWaitsForItsImage(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		m := w.agent(t.Context())
		m.Update(onePod())
		synctest.Wait()
		w.mu.Lock()
		w.imageErr = fmt.Errorf("%w: connection refused", image.ErrPull)
		w.mu.Unlock()
		began := time.Now()
		w.exit(id("main", 0), 1)
		time.Sleep(time.Second)
		w.mu.Lock()
		w.imageErr = nil
		w.mu.Unlock()
		for w.status().ContainerStatuses[0].RestartCount == 0 {
			time.Sleep(time.Second)
		}
		if got := time.Since(began); got != firstBackoff {
			t.Errorf("restarted after %v, want %v", got, firstBackoff)
		}
	})
}

// TestNoWayBack: a pod that ended stays ended, whatever its status says later.
func TestNoWayBack(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		m := w.agent(t.Context())
		m.Update(onePod())
		synctest.Wait()
		failed := onePod()
		failed.Status.Phase = corev1.PodFailed
		m.Update(failed)
		time.Sleep(time.Minute)
		w.mu.Lock()
		before := len(w.trace)
		w.mu.Unlock()
		m.Update(onePod())
		time.Sleep(time.Minute)
		w.mu.Lock()
		defer w.mu.Unlock()
		if after := w.trace[before:]; len(after) > 0 {
			t.Errorf("it was brought back: %v", after)
		}
	})
}

// TestSidecarWithoutProbeHoldsNothingUp: it counts as started when it runs, so
// one look is enough to start what comes after it.
func TestSidecarWithoutProbeHoldsNothingUp(t *testing.T) {
	inBubble(t, func(t *testing.T, world *world) {
		w := newWorker(world.agent(t.Context()), onePod(withInit))
		w.setUpCtx, w.cancel = context.WithCancel(t.Context())
		defer w.ops.Wait()
		defer w.cancel()
		for _, step := range w.st.Hooks {
			step.Done = true
		}
		first, sidecar, second := w.st.Containers[0], w.st.Containers[1], w.st.Containers[2]
		for _, c := range w.st.Containers {
			c.Image.Done = true
		}
		first.Current = &Attempt{runtime.Status{State: runtime.StateExited}}
		sidecar.Current = &Attempt{runtime.Status{State: runtime.StateRunning, Spec: runtime.ContainerSpec{ImageRef: sidecar.Spec.Image}}}
		if w.look(t.Context()); second.Op != Starting {
			t.Errorf("the container after the sidecar is %q", second.Op)
		}
	})
}
