package pod

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/containerd/errdefs"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"lighter.dev/lighter/agent/env"
	"lighter.dev/lighter/agent/image"
	"lighter.dev/lighter/agent/probe"
	"lighter.dev/lighter/agent/runtime"
)

// The reasons a container cannot be made, as its waiting state shows them.
const (
	reasonConfig = "CreateContainerConfigError"
	reasonCreate = "CreateContainerError"
	reasonRun    = "RunContainerError"
)

// startError is a failure with its reason.
type startError struct {
	reason string
	err    error
}

func (e *startError) Error() string { return e.err.Error() }
func (e *startError) Unwrap() error { return e.err }

// start makes the next attempt at a container, beside the worker.
func (w *worker) start(c *Container, now time.Time) {
	number := 0
	single := w.view.single(c)
	if c.Current != nil {
		number = c.Current.Spec.Attempt + 1
		if c.Recreate || single != nil && single.fresh(c) {
			c.Backoff = Backoff{}
		} else {
			c.Backoff = c.Backoff.next(c.Current.StartedAt, c.Current.FinishedAt)
		}
	}
	c.Op = Starting
	old, previous, stale := c.Last, c.Current, c.Stale
	in := startInput{
		ctx: w.setUpCtx, pod: w.pod(), spec: c.Spec, image: c.Has, number: number,
		spaces: w.box.spaces, ips: w.podIPs(), services: env.ServicesFor(w.view.Pod, w.cfg.Services()),
	}
	if single != nil {
		in.single, in.succession = single, single.succeed(c)
	}
	if in.attach {
		in.await, c.Withdraw = context.WithTimeout(in.ctx, attachPatience)
	}
	in.hold = func(spec *runtime.ContainerSpec) { w.post(func() { c.Held = spec }) }
	w.async(func() func() {
		if stale != nil {
			if err := w.discard(in.ctx, stale, previous); err != nil {
				return func() { w.started(c, nil, &startError{reasonCreate, err}) }
			}
		}
		attempt, err := w.attempt(in)
		if err == nil && old != nil {
			w.forget(in.ctx, old, previous, attempt)
		}
		return func() { w.started(c, attempt, err) }
	})
}

// attachPatience is how long a container that was to begin with an attached
// client waits for it.
const attachPatience = 30 * time.Second

// startInput is what an attempt needs of the worker's state.
type startInput struct {
	ctx      context.Context
	pod      *corev1.Pod
	spec     *corev1.Container
	image    image.Image
	number   int
	spaces   runtime.Namespaces
	ips      []netip.Addr
	services []*corev1.Service
	// single is nil for a pod that "lighter run" did not make.
	single *Single
	succession
	// await is the context in which it waits for a client, hold what is called
	// with the container that does, and with nil when it goes on.
	await context.Context
	hold  func(*runtime.ContainerSpec)
}

// attempt creates and starts a container, and runs its postStart hook. The
// attempt it returns exists in the engine, even when it could not start.
func (w *worker) attempt(in startInput) (*Attempt, error) {
	spec, err := w.containerSpec(in)
	if err != nil {
		return nil, &startError{reasonConfig, err}
	}
	// Writable also for readOnlyRootFilesystem: the runtime has to make mount points
	// (/etc/hosts) that the image lacks, and makes the root read-only after that.
	if spec.RootFS, err = w.cfg.Images.Prepare(in.ctx, spec.RootFSKey(), in.image, false); err != nil {
		return nil, &startError{reasonCreate, err}
	}
	if in.previous != "" {
		// Two mounts of one overlay at a time would spoil it.
		if err := w.cfg.Engine.ReleaseRootFS(in.ctx, in.previous); err != nil && !errdefs.IsNotFound(err) {
			return nil, &startError{reasonCreate, err}
		}
	}
	if err := w.cfg.Engine.Create(in.ctx, spec); err != nil {
		return w.refused(in, spec, &startError{reasonCreate, err})
	}
	w.containerEvent(in.pod, in.spec, corev1.EventTypeNormal, "Created", "Created container: "+in.spec.Name)
	if err := w.awaitClient(in, &spec); err != nil {
		return nil, errors.Join(err, w.discard(context.WithoutCancel(in.ctx), &spec))
	}
	if err := w.cfg.Engine.Start(in.ctx, spec.ID); err != nil {
		return w.refused(in, spec, &startError{reasonRun, err})
	}
	w.containerEvent(in.pod, in.spec, corev1.EventTypeNormal, "Started", "Started container "+in.spec.Name)
	hookErr := w.postStart(in, spec.ID)
	st, err := w.cfg.Engine.Status(in.ctx, spec.ID)
	if err != nil {
		st = runtime.Status{Spec: spec, State: runtime.StateRunning, StartedAt: time.Now()}
	}
	return &Attempt{Status: st}, hookErr
}

// awaitClient waits until a client has attached, if one wants to see all that
// the container prints. A client that does not come is not waited for long.
func (w *worker) awaitClient(in startInput, spec *runtime.ContainerSpec) error {
	if !in.attach {
		return nil
	}
	in.hold(spec)
	defer in.hold(nil)
	err := w.cfg.Engine.WaitAttached(in.await, spec.ID)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.DeadlineExceeded):
		w.containerEvent(in.pod, in.spec, corev1.EventTypeWarning, "NotAttached",
			fmt.Sprintf("No client has attached within %v; starting the container without", attachPatience))
		return nil
	}
	return fmt.Errorf("%w: %w", errWithdrawn, err)
}

// errWithdrawn: another request came before the container had begun.
var errWithdrawn = errors.New("the container was not started")

// errPostStart: the container runs, but its postStart hook failed.
var errPostStart = errors.New("PostStartHook failed")

// refused turns a container that could not start into an attempt that ended at
// once, so that restart policy and back-off treat it like a crash. The engine
// keeps a record of what the OCI runtime refused, for the next agent.
func (w *worker) refused(in startInput, spec runtime.ContainerSpec, cause *startError) (*Attempt, error) {
	if in.ctx.Err() != nil {
		// The pod ends before it began; do not leave a container half-made.
		if err := w.discard(context.WithoutCancel(in.ctx), &spec); err != nil {
			w.log.Warn("Cannot remove container that was not started", "id", spec.ID, "err", err)
		}
		return nil, cause
	}
	st, err := w.cfg.Engine.Status(in.ctx, spec.ID)
	if err != nil || st.State != runtime.StateExited {
		st = runtime.Status{Spec: spec, State: runtime.StateExited, CreatedAt: time.Now(), ExitCode: exitStartError, Reason: "StartError", Message: cause.Error()}
		if err := w.discard(in.ctx, &spec); err != nil {
			w.log.Warn("Cannot remove container that failed to start", "id", spec.ID, "err", err)
		}
	}
	if st.FinishedAt.IsZero() {
		st.FinishedAt = time.Now()
	}
	if st.StartedAt.IsZero() {
		st.StartedAt = st.FinishedAt
	}
	return &Attempt{Status: st}, cause
}

// exitStartError is the exit code Kubernetes gives to a container that could
// not be started.
const exitStartError = 128

// started takes the result of an attempt.
func (w *worker) started(c *Container, attempt *Attempt, err error) {
	c.Op, c.Held = Idle, nil
	if c.Withdraw != nil {
		c.Withdraw()
		c.Withdraw = nil
	}
	if attempt != nil {
		c.Stale = nil
		if c.Current != nil {
			c.Last = c.Current
		}
		c.Current, c.Stop, c.Unhealthy, c.Recreate = attempt, nil, "", false
		c.Started, c.Ready = false, false
		c.Start = Step{}
		if attempt.State == runtime.StateExited {
			w.exited(c)
		} else {
			// An end just after the start may have been told while nobody here
			// knew the attempt.
			w.refresh(context.Background(), attempt.Spec.ID)
		}
	}
	var start *startError
	switch {
	case err == nil:
		return
	case errors.Is(err, errPostStart):
		c.Unhealthy = err.Error()
		w.containerEvent(w.view.Pod, c.Spec, corev1.EventTypeWarning, "FailedPostStartHook", err.Error())
		return
	case w.setUpCtx.Err() != nil, errors.Is(err, errWithdrawn):
		return
	case errors.As(err, &start) && attempt == nil:
		c.Start.fail(err, time.Now(), firstRetry, maxRetry)
	}
	w.log.Warn("Cannot start container", "container", c.Spec.Name, "err", err)
	w.containerEvent(w.view.Pod, c.Spec, corev1.EventTypeWarning, "Failed", "Error: "+err.Error())
}

// containerSpec puts together what the engine needs.
func (w *worker) containerSpec(in startInput) (runtime.ContainerSpec, error) {
	config := in.image.Config.Config
	if in.single != nil {
		config = in.single.imageConfig(config)
	}
	if err := checkUser(in.pod, in.spec, config.User); err != nil {
		return runtime.ContainerSpec{}, err
	}
	vars, err := env.Make(in.spec, w.envSources(in))
	if err != nil {
		return runtime.ContainerSpec{}, err
	}
	id := containerID(in.pod.UID, in.spec.Name, in.number)
	mounts, err := w.mounts(in, vars)
	if err != nil {
		return runtime.ContainerSpec{}, err
	}
	spec := in.spec.DeepCopy()
	spec.Command, spec.Args = env.Expand(spec.Command, vars), env.Expand(spec.Args, vars)
	out := runtime.ContainerSpec{
		ID: id, PodUID: string(in.pod.UID), PodNamespace: in.pod.Namespace, PodName: in.pod.Name,
		Name: in.spec.Name, Attempt: in.number,
		Request: in.request, Retries: in.retries, Snapshot: in.snapshot,
		ImageRef: in.spec.Image, ImageID: string(in.image.Target), Image: config,
		Container: spec, PodSecurity: in.pod.Spec.SecurityContext,
		Env: env.Strings(vars), Mounts: mounts, Namespaces: in.spaces, HostPID: in.pod.Spec.HostPID,
		Hostname:     hostname(in.pod, w.cfg.ClusterDomain),
		CgroupParent: w.cgroup, LogPath: cmp.Or(in.logPath, w.logPath(in.spec.Name, in.number)),
		OOMScoreAdj: oomScore(in.pod, in.spec, w.cfg.Allocatable()),
		Runtime:     ptr.Deref(in.pod.Spec.RuntimeClassName, ""),
	}
	if in.single != nil {
		out.Groups, out.Rlimits = in.single.Policy.Groups, in.single.rlimits()
	}
	return out, nil
}

func (w *worker) envSources(in startInput) env.Sources {
	return env.Sources{
		Pod: in.pod, NodeName: w.cfg.NodeName, Allocatable: w.cfg.Allocatable(), Services: in.services,
		PodIPs: texts(in.ips), HostIPs: texts(w.cfg.HostIPs()),
		ConfigMap: func(name string) (*corev1.ConfigMap, error) {
			return w.cfg.Objects.ConfigMap(in.ctx, in.pod.Namespace, name)
		},
		Secret: func(name string) (*corev1.Secret, error) {
			return w.cfg.Objects.Secret(in.ctx, in.pod.Namespace, name)
		},
	}
}

// mounts are the volumes and the pod's own files.
func (w *worker) mounts(in startInput, vars []corev1.EnvVar) ([]runtime.Mount, error) {
	mounts, err := w.cfg.Volumes.Mounts(in.pod, in.spec, vars)
	if err != nil {
		return nil, err
	}
	for _, m := range w.fileMounts(in.pod) {
		taken := slices.ContainsFunc(mounts, func(have runtime.Mount) bool { return have.ContainerPath == m.ContainerPath })
		if !taken {
			mounts = append(mounts, m)
		}
	}
	return mounts, nil
}

func (w *worker) logPath(container string, attempt int) string {
	return filepath.Join(w.logDir(), container, strconv.Itoa(attempt)+".log")
}

// discard removes an attempt, and its file system unless others have it too.
func (w *worker) discard(ctx context.Context, spec *runtime.ContainerSpec, others ...*Attempt) error {
	key := spec.RootFSKey()
	shared := spec.Snapshot != "" && spec.Snapshot != spec.ID && len(others) == 0
	for _, other := range others {
		shared = shared || other != nil && other.Spec.RootFSKey() == key
	}
	if shared {
		key = ""
	}
	return w.deleteContainer(ctx, spec.ID, key)
}

// forget removes an old attempt: only the newest and the one before are kept.
func (w *worker) forget(ctx context.Context, old *Attempt, kept ...*Attempt) {
	if err := w.discard(ctx, &old.Spec, kept...); err != nil {
		w.log.Warn("Cannot remove old container", "id", old.Spec.ID, "err", err)
	}
	if slices.ContainsFunc(kept, func(a *Attempt) bool { return a.Spec.LogPath == old.Spec.LogPath }) {
		return
	}
	if err := os.Remove(old.Spec.LogPath); err != nil && !errors.Is(err, os.ErrNotExist) {
		w.log.Warn("Cannot remove old log", "path", old.Spec.LogPath, "err", err)
	}
}

// syncProbes makes sure that each running container is probed, and derives
// Started and Ready of those without probes.
func (w *worker) syncProbes(ctx context.Context) {
	ending := w.view.Deleted()
	for _, c := range w.st.Containers {
		if !c.running() || c.Op == Starting {
			c.Ready = c.Role == Init && c.succeeded()
			continue
		}
		if c.Spec.StartupProbe == nil {
			c.Started = true
		}
		if c.Spec.ReadinessProbe == nil {
			c.Ready = c.Started && c.Role != Init
		}
		if ending || c.Stop != nil || c.Role == Init || !w.box.attached {
			continue
		}
		w.probe(ctx, c)
	}
}

func (w *worker) probe(ctx context.Context, c *Container) {
	address := ""
	if ips := w.podIPs(); len(ips) > 0 {
		address = ips[0].String()
	}
	w.cfg.Probes.Start(ctx, probe.Target{
		Pod: w.view.Pod, Container: c.Spec, ContainerID: c.Current.Spec.ID, Address: address,
		StartedAt: c.Current.StartedAt, Adopted: c.Current.StartedAt.Before(w.m.began),
		WasStarted: c.Started, WasReady: c.Ready,
	}, func(r probe.Result) { w.post(func() { w.probed(c, r) }) })
}

// probed takes a probe's change of mind.
func (w *worker) probed(c *Container, r probe.Result) {
	if !c.running() || c.Current.Spec.ID != r.ContainerID {
		return
	}
	switch {
	case r.Kind == probe.Readiness:
		c.Ready = r.OK
	case r.Kind == probe.Startup && r.OK:
		c.Started = true
	case r.Kind == probe.Startup && !r.OK:
		c.Unhealthy = fmt.Sprintf("Container %s failed startup probe, will be restarted", c.Spec.Name)
	case r.Kind == probe.Liveness && !r.OK:
		c.Unhealthy = fmt.Sprintf("Container %s failed liveness probe, will be restarted", c.Spec.Name)
	}
}
