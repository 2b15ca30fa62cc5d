package pod

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"

	"lighter.dev/lighter/agent/runtime"
	"lighter.dev/lighter/agent/status"
)

// worker owns one pod. Its goroutine is the only one that reads or writes the
// fields below "owned"; everybody else posts a function to it.
type worker struct {
	m   *Manager
	cfg *Config
	uid types.UID
	log *slog.Logger

	mu    sync.Mutex
	inbox []func()
	wakeC chan struct{}
	// latest is view.Pod for the operations beside the worker.
	latest atomic.Pointer[corev1.Pod]
	// cgroup is the pod's, relative to the engine's root. It is set once, before run.
	cgroup string
	// picture is the last State for readers on other goroutines.
	picture atomic.Pointer[Picture]
	ops     sync.WaitGroup

	// owned
	view     View
	st       State
	box      sandbox
	sent     *corev1.PodStatus
	setUpCtx context.Context // ends when the pod has to end
	cancel   context.CancelFunc
	// objects counts changes of ConfigMaps and Secrets; mounted is what the
	// last run of the volumes hook began with.
	objects, mounted uint64
	// ignored is what the user was told of annotations that do not hold.
	ignored string
}

// sandbox is what set-up gave the pod.
type sandbox struct {
	spaces   runtime.Namespaces
	attached bool
	ips      []netip.Addr
}

func newWorker(m *Manager, pod *corev1.Pod) *worker {
	w := &worker{
		m: m, cfg: &m.cfg, uid: pod.UID,
		log:   m.cfg.Log.With("pod", pod.Namespace+"/"+pod.Name, "uid", pod.UID),
		wakeC: make(chan struct{}, 1),
		view:  View{Pod: pod}, cgroup: cgroupPath(pod),
	}
	w.latest.Store(pod)
	w.st = State{Hooks: map[string]*Step{}, StartTime: time.Now()}
	if pod.Status.StartTime != nil {
		w.st.StartTime = pod.Status.StartTime.Time
	}
	for _, name := range setupHooks {
		w.st.Hooks[name] = &Step{}
	}
	w.alignContainers()
	return w
}

// alignContainers makes State name the containers of the spec, in its order.
// Only the image of a container can change in a pod that exists.
func (w *worker) alignContainers() {
	old := map[string]*Container{}
	for _, c := range w.st.Containers {
		old[c.Spec.Name] = c
	}
	w.st.Containers = nil
	add := func(spec *corev1.Container, role Role) {
		c := old[spec.Name]
		switch {
		case c == nil:
			c = &Container{}
		case c.Spec.Image != spec.Image:
			busy := c.Image.Busy
			c.Image = Step{Busy: busy}
		}
		c.Spec, c.Role = spec, role
		w.st.Containers = append(w.st.Containers, c)
	}
	spec := &w.view.Pod.Spec
	for i := range spec.InitContainers {
		role := Init
		if p := spec.InitContainers[i].RestartPolicy; p != nil && *p == corev1.ContainerRestartPolicyAlways {
			role = Sidecar
		}
		add(&spec.InitContainers[i], role)
	}
	for i := range spec.Containers {
		add(&spec.Containers[i], Main)
	}
}

// pod is the newest spec, for any goroutine.
func (w *worker) pod() *corev1.Pod { return w.latest.Load() }

// viewOf reads a version of the pod.
func (w *worker) viewOf(pod *corev1.Pod) View {
	single, err := singleOf(pod)
	text := ""
	if err != nil {
		text = err.Error()
	}
	if w.ignored != text && text != "" {
		w.log.Warn("Ignoring annotation", "err", err)
		w.event(corev1.EventTypeWarning, "InvalidAnnotation", text)
	}
	w.ignored = text
	return View{Pod: pod, Single: single}
}

// want takes a new version of what is wanted.
func (w *worker) want(v View) {
	if v.Single == nil || w.view.Single == nil || v.Single.Run.Number != w.view.Single.Run.Number {
		for _, c := range w.st.Containers {
			if c.Withdraw != nil {
				c.Withdraw()
			}
		}
	}
	w.view = v
	w.latest.Store(v.Pod)
	w.alignContainers()
}

// post runs f on the worker's goroutine, then lets it look again.
func (w *worker) post(f func()) {
	w.mu.Lock()
	w.inbox = append(w.inbox, f)
	w.mu.Unlock()
	select {
	case w.wakeC <- struct{}{}:
	default:
	}
}

func (w *worker) takeInbox() []func() {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := w.inbox
	w.inbox = nil
	return all
}

// run is the life of the worker: look, decide, act, report, wait. It returns
// when nothing is left of the pod, or when ctx ends; in that case containers
// run on and the next agent adopts them.
func (w *worker) run(ctx context.Context) {
	defer w.ops.Wait()
	w.setUpCtx, w.cancel = context.WithCancel(ctx)
	defer w.cancel()
	for {
		for _, f := range w.takeInbox() {
			f()
		}
		action := w.look(ctx)
		w.publish()
		if action.Do == Done {
			w.m.finished(w)
			return
		}
		if !w.wait(ctx, action.Until) {
			return
		}
	}
}

// look takes in what follows from the state of the containers, then acts on it:
// one without startup probe counts as started, which lets the next one start.
func (w *worker) look(ctx context.Context) Action {
	w.syncProbes(ctx)
	return w.step(ctx)
}

// step acts until there is nothing to do now.
func (w *worker) step(ctx context.Context) Action {
	for ctx.Err() == nil {
		now := time.Now()
		if f := fateOf(w.view, &w.st, now); f.kind == finish || f.kind == remove {
			// No use in pulling or mounting for a pod that ends.
			w.st.Ended = true
			w.cancel()
		}
		action := Next(w.view, &w.st, now)
		if action.Do == Wait || action.Do == Done {
			return action
		}
		w.act(ctx, action, now)
	}
	return Action{Do: Wait}
}

// wait returns false when ctx ended.
func (w *worker) wait(ctx context.Context, until time.Time) bool {
	var due <-chan time.Time
	if !until.IsZero() {
		timer := time.NewTimer(time.Until(until))
		defer timer.Stop()
		due = timer.C
	}
	select {
	case <-ctx.Done():
		return false
	case <-w.wakeC:
	case <-due:
	}
	return true
}

// act carries out one action. Each case changes State so that Next does not
// ask for the same again.
func (w *worker) act(ctx context.Context, a Action, now time.Time) {
	switch a.Do {
	case Setup:
		w.setup(a.Hook)
	case Pull:
		w.pull(a.Container)
	case Run:
		w.start(a.Container, now)
	case StopIt:
		w.stop(ctx, a, now)
	case Kill:
		w.kill(ctx, a.Container)
	case Fail:
		w.st.Failed = &Failure{a.Reason, a.Message}
		w.event(corev1.EventTypeWarning, a.Reason, a.Message)
	case Release:
		w.undo(ctx, &w.st.Release, releaseHooks)
	case Teardown:
		w.undo(ctx, &w.st.Teardown, w.hooks())
	case Expire:
		w.expire(ctx)
	case Finalize:
		w.finalize(ctx)
	}
}

// async runs f beside the worker and posts what f returns back to it.
func (w *worker) async(f func() func()) {
	w.ops.Go(func() { w.post(f()) })
}

// publish reports State if it changed since the last report.
func (w *worker) publish() {
	st := w.compute(time.Now())
	w.picture.Store(w.takePicture(&st))
	if w.view.Gone || w.sent != nil && equality.Semantic.DeepEqual(*w.sent, st) {
		return
	}
	w.sent = &st
	w.cfg.Statuses.Set(w.view.Pod, st)
}

// compute derives the API status. Transition times of conditions come from
// what was sent last, which may be newer than what the API echoed.
func (w *worker) compute(now time.Time) corev1.PodStatus {
	pod := *w.view.Pod
	if w.sent != nil {
		merged := *w.sent
		for _, c := range pod.Status.Conditions {
			if !hasCondition(merged.Conditions, c.Type) || !own(c.Type) {
				merged.Conditions = setCondition(merged.Conditions, c)
			}
		}
		merged.QOSClass, merged.NominatedNodeName = pod.Status.QOSClass, pod.Status.NominatedNodeName
		pod.Status = merged
	}
	in := status.Input{
		Pod: &pod, NetworkReady: w.st.Hooks[hookNetwork].Done && !w.st.Release.Done && !w.st.Teardown.Done,
		PodIPs: w.podIPs(), HostIPs: w.cfg.HostIPs(), StartTime: w.st.StartTime,
		Stopped: w.stopped(),
	}
	in.Init, in.Main = w.report()
	if w.st.Failed != nil {
		in.Failed, in.Reason, in.Message = true, w.st.Failed.Reason, w.st.Failed.Message
	}
	return status.Compute(in, now)
}

// stopped: nothing runs and nothing will be started again.
func (w *worker) stopped() bool {
	f := fateOf(w.view, &w.st, time.Now())
	return (f.kind == finish || f.kind == remove) && !anythingMoves(&w.st)
}

func own(t corev1.PodConditionType) bool {
	switch t {
	case corev1.PodReadyToStartContainers, corev1.PodInitialized, corev1.PodReady, corev1.ContainersReady, corev1.PodScheduled:
		return true
	}
	return false
}

func hasCondition(all []corev1.PodCondition, t corev1.PodConditionType) bool {
	for i := range all {
		if all[i].Type == t {
			return true
		}
	}
	return false
}

func setCondition(all []corev1.PodCondition, c corev1.PodCondition) []corev1.PodCondition {
	out := make([]corev1.PodCondition, 0, len(all)+1)
	for _, have := range all {
		if have.Type != c.Type {
			out = append(out, have)
		}
	}
	return append(out, c)
}
