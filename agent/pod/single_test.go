package pod

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"lighter.dev/lighter/agent/runtime"
	"lighter.dev/lighter/api/v1alpha1"
)

// TestNextOfSingle: what happens to a container of "lighter run", by its policy
// and the newest request.
func TestNextOfSingle(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	grace := int64(7)
	run := func(number int64) v1alpha1.RunRequest { return v1alpha1.RunRequest{Number: number} }
	stop := func(number int64) v1alpha1.RunRequest {
		return v1alpha1.RunRequest{Number: number, Stopped: true, GraceSeconds: &grace, Signal: "SIGINT"}
	}
	ended := func(code int, request int64, retries int) *Attempt {
		return &Attempt{runtime.Status{
			State: runtime.StateExited, ExitCode: code, StartedAt: now.Add(-time.Second), FinishedAt: now,
			Spec: runtime.ContainerSpec{Request: request, Retries: retries, ImageRef: "web:v1"},
		}}
	}
	runs := func(request int64) *Attempt {
		return &Attempt{runtime.Status{State: runtime.StateRunning, Spec: runtime.ContainerSpec{Request: request, ImageRef: "web:v1"}}}
	}
	lost := &Attempt{runtime.Status{State: runtime.StateUnknown, FinishedAt: now, Spec: runtime.ContainerSpec{ImageRef: "web:v1"}}}
	no, always, unless := v1alpha1.RestartNo, v1alpha1.RestartAlways, v1alpha1.RestartUnlessStopped
	failure := v1alpha1.RestartOnFailure
	for _, tt := range []struct {
		name    string
		policy  v1alpha1.RestartPolicy
		max     int
		run     v1alpha1.RunRequest
		current *Attempt
		change  func(*Container)
		want    Verb
	}{
		{"new", no, 0, run(0), nil, nil, Run},
		{"made, not to be started", no, 0, stop(0), nil, nil, Wait},
		{"runs", no, 0, run(0), runs(0), nil, Wait},
		{"no: ended", no, 0, run(0), ended(0, 0, 0), nil, Wait},
		{"no: failed", no, 0, run(0), ended(1, 0, 0), nil, Wait},
		{"no: lost with its host", no, 0, run(0), lost, nil, Wait},
		{"on-failure: ended well", failure, 0, run(0), ended(0, 0, 0), nil, Wait},
		{"on-failure: failed", failure, 0, run(0), ended(1, 0, 9), nil, Run},
		{"on-failure: lost with its host", failure, 0, run(0), lost, nil, Run},
		{"on-failure: retries are left", failure, 2, run(0), ended(1, 0, 1), nil, Run},
		{"on-failure: none is left", failure, 2, run(0), ended(1, 0, 2), nil, Wait},
		{"on-failure: started by hand after that", failure, 2, run(1), ended(1, 0, 2), nil, Run},
		{"always: ended", always, 0, run(0), ended(0, 0, 0), nil, Run},
		{"unless-stopped: ended", unless, 0, run(0), ended(0, 0, 0), nil, Run},
		{"the back-off holds", always, 0, run(0), ended(0, 0, 0), func(c *Container) { c.Backoff = Backoff{time.Minute} }, Wait},
		{"but not for a start by hand", always, 0, run(1), ended(0, 0, 0), func(c *Container) { c.Backoff = Backoff{time.Minute} }, Run},

		{"stop", always, 0, stop(1), runs(0), nil, StopIt},
		{"is stopping", always, 0, stop(1), runs(0), func(c *Container) { c.Stop = &Stop{Deadline: now.Add(time.Second), Request: 1} }, Wait},
		{"takes too long", always, 0, stop(1), runs(0), func(c *Container) { c.Stop = &Stop{Deadline: now, Request: 1} }, Kill},
		{"kill while it is stopping", always, 0, stop(2), runs(0), func(c *Container) { c.Stop = &Stop{Deadline: now.Add(time.Second), Request: 1} }, StopIt},
		{"stopped: always", always, 0, stop(1), ended(143, 0, 0), nil, Wait},
		{"stopped: unless-stopped", unless, 0, stop(1), ended(143, 0, 0), nil, Wait},
		{"stopped: on-failure", failure, 0, stop(1), ended(143, 0, 0), nil, Wait},
		{"start", no, 0, run(2), ended(143, 0, 0), nil, Run},
		{"restart what runs", no, 0, run(1), runs(0), nil, StopIt},
		{"restarted", no, 0, run(1), ended(143, 0, 0), nil, Run},
		{"the restart is done", no, 0, run(1), runs(1), nil, Wait},

		{"always: revived by the agent's start", always, 0, stop(1), ended(143, 0, 0), func(c *Container) { c.Revived = 1 }, Run},
		{"runs since", always, 0, stop(1), runs(1), func(c *Container) { c.Revived = 1 }, Wait},
		{"ended since", always, 0, stop(1), ended(1, 1, 0), func(c *Container) { c.Revived = 1 }, Run},
		{"stopped again", always, 0, stop(2), runs(1), func(c *Container) { c.Revived = 1 }, StopIt},
		{"stopped again before it was revived", always, 0, stop(2), ended(143, 0, 0), func(c *Container) { c.Revived = 1 }, Wait},

		{"its image was changed", no, 0, run(0), runs(0), func(c *Container) { c.Current.Spec.ImageRef = "web:v0" }, StopIt},
		{"and it ended", no, 0, run(0), ended(143, 0, 0), func(c *Container) { c.Recreate = true }, Run},
	} {
		t.Run(tt.name, func(t *testing.T) {
			pod := onePod()
			c := &Container{Spec: &pod.Spec.Containers[0], Image: Step{Done: true}, Current: tt.current}
			if tt.change != nil {
				tt.change(c)
			}
			s := &State{Hooks: map[string]*Step{hookCgroup: {Done: true}, hookNetwork: {Done: true}, hookVolumes: {Done: true}}, Containers: []*Container{c}}
			v := View{Pod: pod, Single: &Single{v1alpha1.ContainerPolicy{Restart: tt.policy, MaxRetries: tt.max}, tt.run}}
			a := Next(v, s, now)
			if a.Do != tt.want {
				t.Fatalf("%+v, want %s", a, tt.want)
			}
			if a.Do == StopIt && a.Reason == requested && tt.run.Stopped && (a.Grace != 7*time.Second || a.Signal != "SIGINT") {
				t.Errorf("stop with %v, %q", a.Grace, a.Signal)
			}
		})
	}
}

func TestSingleOf(t *testing.T) {
	yes := true
	owner := metav1.OwnerReference{Kind: "ReplicaSet", Name: "web", Controller: &yes}
	for _, tt := range []struct {
		name        string
		policy, run string
		change      func(*corev1.Pod)
		want        *Single
		ignored     bool
	}{
		{name: "an ordinary pod", run: `{"number":3,"stopped":true}`},
		{name: "without a request", policy: `{"restart":"no"}`, want: &Single{Policy: v1alpha1.ContainerPolicy{Restart: "no"}}},
		{
			name: "with one", policy: `{"restart":"on-failure","maxRetries":2,"remove":true}`, run: `{"number":3,"stopped":true,"signal":"SIGKILL"}`,
			want: &Single{
				v1alpha1.ContainerPolicy{Restart: "on-failure", MaxRetries: 2, Remove: true},
				v1alpha1.RunRequest{Number: 3, Stopped: true, Signal: "SIGKILL"},
			},
		},
		{name: "a policy that is none", policy: `no`, ignored: true},
		{name: "a request that is none", policy: `{"restart":"no"}`, run: `stop`, want: &Single{Policy: v1alpha1.ContainerPolicy{Restart: "no"}}, ignored: true},
		{name: "of a controller", policy: `{}`, change: func(p *corev1.Pod) { p.OwnerReferences = []metav1.OwnerReference{owner} }, ignored: true},
		{name: "another restart policy", policy: `{}`, change: withPolicy(corev1.RestartPolicyNever), ignored: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			pod := onePod()
			pod.Annotations = map[string]string{}
			if tt.policy != "" {
				pod.Annotations[v1alpha1.ContainerAnnotation] = tt.policy
			}
			if tt.run != "" {
				pod.Annotations[v1alpha1.RunAnnotation] = tt.run
			}
			if tt.change != nil {
				tt.change(pod)
			}
			got, err := singleOf(pod)
			if (err != nil) != tt.ignored {
				t.Errorf("error %v, want one: %v", err, tt.ignored)
			}
			if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", tt.want) {
				t.Errorf("%+v, want %+v", got, tt.want)
			}
		})
	}
}

// singlePod is one of "lighter run" with this request.
func singlePod(policy v1alpha1.ContainerPolicy, run v1alpha1.RunRequest) *corev1.Pod {
	text := func(v any) string {
		raw, err := json.Marshal(v)
		if err != nil {
			panic(err)
		}
		return string(raw)
	}
	return onePod(func(p *corev1.Pod) {
		p.Annotations = map[string]string{v1alpha1.ContainerAnnotation: text(policy), v1alpha1.RunAnnotation: text(run)}
	})
}

func (w *world) snapshotsOf() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.snapshots)
}

// TestStoppedKeepsItsPlace: stopped, started and ended, a container keeps its
// file system and its pod's address, and never loops.
func TestStoppedKeepsItsPlace(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		m := w.agent(t.Context())
		no := v1alpha1.ContainerPolicy{Restart: v1alpha1.RestartNo}
		m.Update(singlePod(no, v1alpha1.RunRequest{}))
		synctest.Wait()
		m.Update(singlePod(no, v1alpha1.RunRequest{Number: 1, Stopped: true}))
		st := w.status()
		end := st.ContainerStatuses[0].State.Terminated
		if st.Phase != corev1.PodRunning || end == nil || end.Reason != "Stopped" || end.ExitCode != 143 || st.ContainerStatuses[0].Ready {
			t.Fatalf("after the stop: phase %s, %+v", st.Phase, st.ContainerStatuses[0])
		}
		if st.PodIP != "10.42.0.7" || len(w.attached) != 1 || len(w.volumes) != 1 || len(w.cgroups) != 1 || w.snapshotsOf() != 1 {
			t.Errorf("it lost its place: %+v", st)
		}
		time.Sleep(time.Hour)
		for n := int64(2); n < 6; n++ {
			m.Update(singlePod(no, v1alpha1.RunRequest{Number: n}))
			st = w.status()
			if st.ContainerStatuses[0].State.Running == nil || w.snapshotsOf() != 1 || len(w.mounted) != 1 || w.mounted[id("main", 0)] != id("main", int(n-1)) {
				t.Fatalf("after start %d: %+v, snapshots %v, mounted %v", n, st.ContainerStatuses[0], w.snapshots, w.mounted)
			}
		}
		w.exit(id("main", 4), 3)
		st = w.status()
		if end := st.ContainerStatuses[0].State.Terminated; st.Phase != corev1.PodRunning || end == nil || end.Reason != "Error" || end.ExitCode != 3 {
			t.Fatalf("after its end: phase %s, %+v", st.Phase, st.ContainerStatuses[0])
		}
		if c := w.containers[id("main", 4)]; c.Spec.LogPath != w.containers[id("main", 3)].Spec.LogPath || len(w.containers) != 2 {
			t.Errorf("logs: %v", w.containers)
		}
		m.Update(deleted(singlePod(no, v1alpha1.RunRequest{Number: 5}), 0))
		w.empty(t)
	})
}

// TestAnotherImageIsAnotherFileSystem: what was written on the old one is gone
// for good when the attempt that wrote it is.
func TestAnotherImageIsAnotherFileSystem(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		m := w.agent(t.Context())
		always := v1alpha1.ContainerPolicy{Restart: v1alpha1.RestartAlways}
		m.Update(singlePod(always, v1alpha1.RunRequest{}))
		synctest.Wait()
		next := singlePod(always, v1alpha1.RunRequest{})
		next.Spec.Containers[0].Image = "web:v2"
		m.Update(next)
		if w.status(); w.mounted[id("main", 1)] != id("main", 1) {
			t.Fatalf("mounted: %v", w.mounted)
		}
		w.exit(id("main", 1), 0)
		if w.status(); len(w.snapshots) != 1 || w.mounted[id("main", 1)] != id("main", 2) {
			t.Errorf("snapshots %v, mounted %v", w.snapshots, w.mounted)
		}
	})
}

// TestPolicyOfAContainer: what the policy says goes before the image.
func TestPolicyOfAContainer(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		m := w.agent(t.Context())
		m.Update(singlePod(v1alpha1.ContainerPolicy{
			Restart: v1alpha1.RestartNo, User: "web:staff", Groups: []string{"extra"}, StopSignal: "SIGINT",
			Ulimits: []v1alpha1.Ulimit{{Name: "nofile", Soft: 10, Hard: -1}},
		}, v1alpha1.RunRequest{}))
		w.status()
		got := w.containers[id("main", 0)].Spec
		if got.Image.User != "web:staff" || got.Image.StopSignal != "SIGINT" || !slices.Equal(got.Groups, []string{"extra"}) ||
			!slices.Equal(got.Rlimits, []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 10, Hard: math.MaxUint64}}) {
			t.Errorf("%+v", got)
		}
	})
}

func TestRetriesAreCounted(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		m := w.agent(t.Context())
		policy := v1alpha1.ContainerPolicy{Restart: v1alpha1.RestartOnFailure, MaxRetries: 2}
		m.Update(singlePod(policy, v1alpha1.RunRequest{}))
		for attempt := range 3 {
			w.exit(id("main", latest(w, "main")), 1)
			time.Sleep(time.Minute)
			if st := w.status().ContainerStatuses[0]; attempt < 2 && st.RestartCount != int32(attempt+1) {
				t.Fatalf("after failure %d: %+v", attempt+1, st)
			}
		}
		if st := w.status().ContainerStatuses[0]; st.State.Terminated == nil || st.RestartCount != 2 {
			t.Fatalf("after all retries: %+v", st)
		}
		m.Update(singlePod(policy, v1alpha1.RunRequest{Number: 1}))
		if st := w.status().ContainerStatuses[0]; st.State.Running == nil || w.containers[id("main", 3)].Spec.Retries != 0 {
			t.Fatalf("started by hand: %+v", st)
		}
	})
}

func TestRemoveAtItsEnd(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		m := w.agent(t.Context())
		pod := singlePod(v1alpha1.ContainerPolicy{Restart: v1alpha1.RestartNo, Remove: true}, v1alpha1.RunRequest{})
		m.Update(pod)
		synctest.Wait()
		w.exit(id("main", 0), 4)
		if end := w.status().ContainerStatuses[0].State.Terminated; end == nil || end.ExitCode != 4 || !w.expired[uid] {
			t.Fatalf("ended as %+v, removed: %v", end, w.expired)
		}
		m.Update(deleted(pod, 30))
		w.empty(t)
		if !w.isDeleted(uid) {
			t.Error("not deleted from the API")
		}
	})
}

// TestAwaitsClient: the container begins when a client has attached, or after a
// while, or never if it is stopped first.
func TestAwaitsClient(t *testing.T) {
	no := v1alpha1.ContainerPolicy{Restart: v1alpha1.RestartNo}
	held := func(t *testing.T, w *world) *Manager {
		m := w.agent(t.Context())
		m.Update(singlePod(no, v1alpha1.RunRequest{Number: 1, Attach: true}))
		st := w.status().ContainerStatuses[0]
		if st.State.Waiting == nil || st.State.Waiting.Reason != v1alpha1.ReasonAwaitsClient || st.ContainerID == "" {
			t.Fatalf("status = %+v", st)
		}
		if p, err := m.Pod("default", "web", ""); err != nil || !p.Containers[0].Running || p.Containers[0].ID != id("main", 0) {
			t.Fatalf("one cannot attach: %+v, %v", p, err)
		}
		return m
	}
	inBubble(t, func(t *testing.T, w *world) {
		held(t, w)
		close(w.clients[id("main", 0)])
		if st := w.status(); st.Phase != corev1.PodRunning {
			t.Errorf("phase %s", st.Phase)
		}
	})
	inBubble(t, func(t *testing.T, w *world) {
		held(t, w)
		time.Sleep(attachPatience)
		if st := w.status(); st.Phase != corev1.PodRunning {
			t.Errorf("phase %s when nobody came", st.Phase)
		}
	})
	inBubble(t, func(t *testing.T, w *world) {
		m := held(t, w)
		m.Update(singlePod(no, v1alpha1.RunRequest{Number: 2, Stopped: true}))
		st := w.status().ContainerStatuses[0]
		if st.State.Waiting == nil || st.State.Waiting.Reason != "Created" || len(w.containers) > 0 {
			t.Fatalf("withdrawn: %+v, %v", st, w.containers)
		}
		m.Update(singlePod(no, v1alpha1.RunRequest{Number: 3}))
		if st := w.status(); st.Phase != corev1.PodRunning {
			t.Errorf("phase %s after the start", st.Phase)
		}
	})
}

// TestSingleSurvivesItsAgent: an agent that dies at any moment between stop and
// start changes nothing, and one that starts revives by Docker's rules.
func TestSingleSurvivesItsAgent(t *testing.T) {
	for _, tt := range []struct {
		restart v1alpha1.RestartPolicy
		revived bool
	}{{v1alpha1.RestartNo, false}, {v1alpha1.RestartUnlessStopped, false}, {v1alpha1.RestartOnFailure, false}, {v1alpha1.RestartAlways, true}} {
		t.Run(string(tt.restart), func(t *testing.T) {
			for k := range 12 {
				inBubble(t, func(t *testing.T, w *world) {
					policy := v1alpha1.ContainerPolicy{Restart: tt.restart}
					m := w.agent(t.Context())
					m.Update(singlePod(policy, v1alpha1.RunRequest{}))
					synctest.Wait()
					stopped := singlePod(policy, v1alpha1.RunRequest{Number: 1, Stopped: true})
					m.Update(stopped)
					synctest.Wait()
					m = w.anew(t, m)
					m.Update(stopped)
					if st := w.status().ContainerStatuses[0]; (st.State.Running != nil) != tt.revived {
						t.Fatalf("after the agent's start: %+v", st)
					}
					w.mu.Lock()
					w.fuse = k
					w.mu.Unlock()
					started := singlePod(policy, v1alpha1.RunRequest{Number: 2})
					m.Update(started)
					synctest.Wait()
					m = w.anew(t, m)
					m.Update(started)
					if st := w.status().ContainerStatuses[0]; st.State.Running == nil || w.snapshotsOf() != 1 {
						t.Fatalf("death at step %d: %+v, snapshots %v after %v", k, st, w.snapshots, w.trace)
					}
				})
			}
		})
	}
}

// anew ends an agent, if it does not do so itself, and starts another.
func (w *world) anew(t *testing.T, m *Manager) *Manager {
	w.mu.Lock()
	w.fuse = -1
	w.die()
	w.mu.Unlock()
	m.Wait()
	return w.agent(t.Context())
}
