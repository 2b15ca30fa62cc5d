package pod

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"

	"lighter.dev/lighter/agent/image"
	"lighter.dev/lighter/agent/probe"
	"lighter.dev/lighter/agent/runtime"
)

func id(name string, attempt int) string { return containerID(uid, name, attempt) }

func TestRunsAndGoes(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		m := w.agent(t.Context())
		pod := onePod()
		m.Update(pod)
		st := w.status()
		if st.Phase != corev1.PodRunning || st.PodIP != "10.42.0.7" || !st.ContainerStatuses[0].Ready {
			t.Fatalf("status = %+v", st)
		}
		if got := st.ContainerStatuses[0].ContainerID; got != "lighter://"+id("main", 0) {
			t.Errorf("container ID = %s", got)
		}
		m.Update(deleted(pod, 30))
		w.empty(t)
		if !w.isDeleted(uid) {
			t.Error("the pod was not deleted from the API")
		}
		if _, err := m.Pod("default", "web", ""); err == nil {
			t.Error("the pod is still listed")
		}
	})
}

func TestInitContainersInOrder(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		m := w.agent(t.Context())
		m.Update(onePod(withInit))
		if st := w.status(); st.Phase != corev1.PodPending || st.ContainerStatuses[0].State.Waiting.Reason != "PodInitializing" {
			t.Fatalf("status = %+v", st)
		}
		w.exit(id("first", 0), 0)
		synctest.Wait()
		w.exit(id("second", 0), 0)
		if st := w.status(); st.Phase != corev1.PodRunning {
			t.Fatalf("phase = %s", st.Phase)
		}
		var created []string
		for _, step := range w.trace {
			if name, ok := strings.CutPrefix(step, "create "); ok {
				created = append(created, name)
			}
		}
		if want := []string{"first", "sidecar", "second", "main"}; !slices.Equal(created, want) {
			t.Errorf("created %v, want %v", created, want)
		}
		// A sidecar that ends is started again; an init container is not.
		w.exit(id("sidecar", 0), 1)
		synctest.Wait()
		if w.containers[id("sidecar", 1)] == nil {
			t.Error("the sidecar was not restarted")
		}
	})
}

func TestCrashLoopBackOff(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		m := w.agent(t.Context())
		m.Update(onePod())
		synctest.Wait()
		for attempt, want := range []time.Duration{0, 10 * time.Second, 20 * time.Second, 40 * time.Second, 80 * time.Second, 160 * time.Second, 300 * time.Second, 300 * time.Second} {
			began := time.Now()
			w.exit(id("main", attempt), 1)
			if want > 0 {
				st := w.status().ContainerStatuses[0]
				if st.State.Waiting == nil || st.State.Waiting.Reason != "CrashLoopBackOff" || st.LastTerminationState.Terminated == nil {
					t.Fatalf("attempt %d: %+v", attempt, st)
				}
			}
			for w.status().ContainerStatuses[0].RestartCount == int32(attempt) {
				time.Sleep(time.Second)
			}
			if got := time.Since(began).Truncate(time.Second); got != want {
				t.Errorf("restart %d after %v, want %v", attempt+1, got, want)
			}
		}
		// Ten minutes of health are forgiveness.
		time.Sleep(11 * time.Minute)
		w.exit(id("main", 8), 1)
		if st := w.status().ContainerStatuses[0]; st.RestartCount != 9 {
			t.Errorf("not restarted at once after a healthy run: %+v", st)
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		if len(w.containers) != 2 {
			t.Errorf("%d containers are kept, want the newest two", len(w.containers))
		}
	})
}

func TestRestartPolicies(t *testing.T) {
	for _, tt := range []struct {
		policy corev1.RestartPolicy
		code   int
		want   corev1.PodPhase
	}{
		{corev1.RestartPolicyNever, 0, corev1.PodSucceeded},
		{corev1.RestartPolicyNever, 3, corev1.PodFailed},
		{corev1.RestartPolicyOnFailure, 0, corev1.PodSucceeded},
		{corev1.RestartPolicyOnFailure, 3, corev1.PodRunning},
		{corev1.RestartPolicyAlways, 0, corev1.PodRunning},
	} {
		t.Run(fmt.Sprintf("%s/%d", tt.policy, tt.code), func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				m := w.agent(t.Context())
				pod := onePod(withPolicy(tt.policy))
				m.Update(pod)
				synctest.Wait()
				w.exit(id("main", 0), tt.code)
				st := w.status()
				if st.Phase != tt.want {
					t.Fatalf("phase = %s, want %s", st.Phase, tt.want)
				}
				if !isTerminal(tt.want) {
					return
				}
				if len(w.attached)+len(w.volumes)+len(w.cgroups) > 0 {
					t.Error("an ended pod still holds resources")
				}
				if len(w.containers) != 1 {
					t.Error("the dead container is gone, and its log with it")
				}
				m.Update(deleted(pod, 0))
				w.empty(t)
			})
		})
	}
}

func TestMissingConfigMapIsRetriedAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		m := w.agent(t.Context())
		m.Update(onePod(func(p *corev1.Pod) {
			p.Spec.Containers[0].EnvFrom = []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "settings"}}}}
		}))
		wait := w.status().ContainerStatuses[0].State.Waiting
		if wait == nil || wait.Reason != "CreateContainerConfigError" || !strings.Contains(wait.Message, `"settings" not found`) {
			t.Fatalf("waiting = %+v", wait)
		}
		began := time.Now()
		w.addConfigMap("settings", map[string]string{"COLOUR": "blue"})
		if st := w.status(); st.Phase != corev1.PodRunning || time.Since(began) > 0 {
			t.Fatalf("phase %s after %v", st.Phase, time.Since(began))
		}
		if env := w.containers[id("main", 0)].Spec.Env; !slices.Contains(env, "COLOUR=blue") {
			t.Errorf("env = %v", env)
		}
	})
}

func TestImagePullBackOff(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.imageErr = fmt.Errorf("%w: registry.example: connection refused", image.ErrPull)
		m := w.agent(t.Context())
		m.Update(onePod())
		wait := w.status().ContainerStatuses[0].State.Waiting
		if wait.Reason != "ErrImagePull" || !strings.Contains(wait.Message, "connection refused") {
			t.Fatalf("waiting = %+v", wait)
		}
		time.Sleep(11 * time.Second)
		if wait = w.status().ContainerStatuses[0].State.Waiting; wait.Reason != "ImagePullBackOff" || !strings.Contains(wait.Message, "connection refused") {
			t.Fatalf("waiting = %+v", wait)
		}
		w.mu.Lock()
		w.imageErr = nil
		w.mu.Unlock()
		time.Sleep(30 * time.Second)
		if st := w.status(); st.Phase != corev1.PodRunning {
			t.Fatalf("phase = %s", st.Phase)
		}
	})
}

func TestStubbornContainerIsKilledInTime(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.ignoreTERM = true
		m := w.agent(t.Context())
		pod := onePod()
		m.Update(pod)
		synctest.Wait()
		began := time.Now()
		m.Update(deleted(pod, 30))
		time.Sleep(20 * time.Second)
		// The user loses patience.
		m.Update(deleted(pod, 1))
		for synctest.Wait(); !w.isDeleted(uid); synctest.Wait() {
			time.Sleep(time.Second)
		}
		if took := time.Since(began); took > 23*time.Second {
			t.Errorf("took %v", took)
		}
		if !slices.Contains(w.trace, syscall.SIGTERM.String()) || !slices.Contains(w.trace, syscall.SIGKILL.String()) {
			t.Errorf("signals: %v", w.trace)
		}
		w.empty(t)
	})
}

func TestLivenessFailureRestarts(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		m := w.agent(t.Context())
		m.Update(onePod(func(p *corev1.Pod) {
			p.Spec.Containers[0].ReadinessProbe = &corev1.Probe{}
			p.Spec.Containers[0].LivenessProbe = &corev1.Probe{}
		}))
		if w.status().ContainerStatuses[0].Ready {
			t.Fatal("ready before the probe said so")
		}
		report := w.probes[id("main", 0)]
		report(probe.Result{ContainerID: id("main", 0), Kind: probe.Readiness, OK: true})
		if st := w.status(); !st.ContainerStatuses[0].Ready {
			t.Fatal("not ready")
		}
		report(probe.Result{ContainerID: id("main", 0), Kind: probe.Liveness})
		if st := w.status().ContainerStatuses[0]; st.RestartCount != 1 || st.Ready {
			t.Fatalf("status = %+v", st)
		}
	})
}

func TestImageChangeRestartsInPlace(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		m := w.agent(t.Context())
		pod := onePod(withPolicy(corev1.RestartPolicyNever))
		m.Update(pod)
		synctest.Wait()
		next := pod.DeepCopy()
		next.Spec.Containers[0].Image = "web:v2"
		m.Update(next)
		st := w.status()
		if c := w.containers[id("main", 1)]; c == nil || c.Spec.ImageRef != "web:v2" || st.Phase != corev1.PodRunning {
			t.Fatalf("container %+v, phase %s", c, st.Phase)
		}
	})
}

func TestStartErrorCountsAsCrash(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.createErr = errors.New(`exec: "nosuch": not found`)
		m := w.agent(t.Context())
		m.Update(onePod(withPolicy(corev1.RestartPolicyNever)))
		st := w.status()
		end := st.ContainerStatuses[0].State.Terminated
		if st.Phase != corev1.PodFailed || end == nil || end.ExitCode != 128 || !strings.Contains(end.Message, "nosuch") {
			t.Fatalf("phase %s, %+v", st.Phase, end)
		}
	})
}

func TestActiveDeadline(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		m := w.agent(t.Context())
		seconds := int64(60)
		m.Update(onePod(func(p *corev1.Pod) { p.Spec.ActiveDeadlineSeconds = &seconds }))
		if st := w.status(); st.Phase != corev1.PodRunning {
			t.Fatalf("phase = %s", st.Phase)
		}
		time.Sleep(61 * time.Second)
		if st := w.status(); st.Phase != corev1.PodFailed || st.Reason != "DeadlineExceeded" {
			t.Fatalf("phase %s, reason %s", st.Phase, st.Reason)
		}
	})
}

func TestHostPortConflictIsRefused(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		m := w.agent(t.Context())
		port := func(p *corev1.Pod) {
			p.Spec.Containers[0].Ports = []corev1.ContainerPort{{HostPort: 80, ContainerPort: 80}}
		}
		m.Update(onePod(port, func(p *corev1.Pod) { p.UID, p.Name = "other", "other" }))
		synctest.Wait()
		m.Update(onePod(port))
		if st := w.status(); st.Phase != corev1.PodFailed || st.Reason != "NodePorts" || !strings.Contains(st.Message, "default/other") {
			t.Fatalf("phase %s, reason %s, message %s", st.Phase, st.Reason, st.Message)
		}
	})
}

// TestAgentRestartKeepsContainers is the promise that matters most.
func TestAgentRestartKeepsContainers(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		ctx, stop := context.WithCancel(t.Context())
		first := w.agent(ctx)
		pod := onePod(withInit)
		first.Update(pod)
		synctest.Wait()
		w.exit(id("first", 0), 0)
		synctest.Wait()
		w.exit(id("second", 0), 0)
		pod = pod.DeepCopy()
		pod.Status = w.status()
		stop()
		first.Wait()
		before := len(w.containers)
		w.trace = nil

		second := w.agent(t.Context())
		second.Update(pod)
		if st := w.status(); st.Phase != corev1.PodRunning || st.ContainerStatuses[0].RestartCount != 0 || !st.ContainerStatuses[0].Ready {
			t.Fatalf("status after the restart: %+v", st)
		}
		for _, step := range w.trace {
			if strings.HasPrefix(step, "create") || step == "start" || step == "pull" {
				t.Errorf("the new agent did %q", step)
			}
		}
		if len(w.containers) != before {
			t.Errorf("%d containers, were %d", len(w.containers), before)
		}
	})
}

func TestOrphansAreSwept(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		ctx, stop := context.WithCancel(t.Context())
		first := w.agent(ctx)
		first.Update(onePod())
		synctest.Wait()
		stop()
		first.Wait()
		w.volumes["nobody"], w.snapshots["nobody_c_0"], w.spaces["nobody"] = true, true, true
		second := w.agent(t.Context())
		if err := second.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.empty(t)
		if w.isDeleted(uid) {
			t.Error("a pod that the API does not know must not be deleted from it")
		}
	})
}

// TestDeathAtEveryStep kills the agent at its k-th step, for every k, during
// the life of a pod, and expects the next agent to finish the work, with no
// container that ran being restarted.
func TestDeathAtEveryStep(t *testing.T) {
	steps := 0
	for k := 0; k < 300; k++ {
		died := false
		t.Run(fmt.Sprint(k), func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				pod := onePod(withInit)
				m := w.agent(t.Context())
				w.mu.Lock()
				w.fuse = k
				w.mu.Unlock()
				revive := func() {
					synctest.Wait()
					w.mu.Lock()
					dead := w.dead
					w.mu.Unlock()
					if !dead {
						return
					}
					died = true
					m.Wait()
					m = w.agent(t.Context())
				}
				m.Update(pod)
				for _, init := range []string{"first", "second"} {
					if revive(); died {
						m.Update(pod)
						synctest.Wait()
					}
					w.exit(id(init, latest(w, init)), 0)
				}
				if revive(); died {
					m.Update(pod)
				}
				st := w.status()
				if st.Phase != corev1.PodRunning {
					t.Fatalf("phase %s after %v\n%+v", st.Phase, w.trace, st)
				}
				if n := st.ContainerStatuses[0].RestartCount; n != 0 {
					t.Errorf("restarted %d times after %v", n, w.trace)
				}
				m.Update(deleted(pod, 5))
				if revive(); died {
					m.Update(deleted(pod, 5))
				}
				time.Sleep(10 * time.Second)
				w.empty(t)
				if !w.isDeleted(uid) {
					t.Error("not deleted from the API")
				}
			})
		})
		if t.Failed() || !died {
			break
		}
		steps++
	}
	t.Logf("survived death at each of %d steps", steps)
	if steps < 50 {
		t.Errorf("only %d steps: the test does not test what it says", steps)
	}
}

// latest is the newest attempt of a container that runs; it waits for it, as a
// container may have to be made again.
func latest(w *world, name string) int {
	for range 600 {
		synctest.Wait()
		w.mu.Lock()
		for _, c := range w.containers {
			if c.Spec.Name == name && c.State == runtime.StateRunning {
				w.mu.Unlock()
				return c.Spec.Attempt
			}
		}
		w.mu.Unlock()
		time.Sleep(time.Second)
	}
	w.t.Fatalf("no container %s runs after %v", name, w.trace)
	return 0
}
