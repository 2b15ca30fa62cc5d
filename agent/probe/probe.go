// Package probe runs the startup, liveness and readiness probes of containers
// and reports when an answer changes.
//
// Each probe of a running container is one goroutine, bound to that container
// ID; a restarted container gets new ones. Liveness and readiness wait for the
// startup probe. The protocols (HTTP, TCP, gRPC health v1) are kubelet's own
// packages, so messages and redirects behave as documented.
//
// One thing is faster than kubelet: until a container was ready for the first
// time, a failing readiness or startup probe is repeated within milliseconds
// for a second or two. These early failures are neither counted nor reported;
// a pod becomes Ready when it is, not a period later.
package probe

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/tools/reference"
	grpcprobe "k8s.io/kubernetes/pkg/probe/grpc"
	httpprobe "k8s.io/kubernetes/pkg/probe/http"
	tcpprobe "k8s.io/kubernetes/pkg/probe/tcp"

	"k8s.io/client-go/kubernetes/scheme"
)

// Kind is what a probe decides on.
type Kind string

// The kinds of probes, worded as in Events.
const (
	Startup   Kind = "Startup"
	Liveness  Kind = "Liveness"
	Readiness Kind = "Readiness"
)

// ExecFunc runs a command in a container. code is its exit code; err says that
// it could not be run at all. It returns within timeout.
type ExecFunc func(ctx context.Context, containerID string, cmd []string, timeout time.Duration) (stdout, stderr []byte, code int, err error)

// Config is what a Manager needs.
type Config struct {
	Exec     ExecFunc
	Recorder record.EventRecorder
	Log      *slog.Logger
}

// Target is one running container.
type Target struct {
	Pod         *corev1.Pod
	Container   *corev1.Container
	ContainerID string
	// Address is where HTTP, TCP and gRPC probes connect: the pod's IP, or the
	// host's for a pod on the host network.
	Address   string
	StartedAt time.Time
	// Adopted: the container ran before this agent did. Its probes start at a
	// random moment of their period, and WasStarted/WasReady hold until then.
	Adopted, WasStarted, WasReady bool
}

// Result is a change of mind. Liveness and startup report only failures that
// reached the threshold (and startup its success).
type Result struct {
	ContainerID string
	Kind        Kind
	OK          bool
	// Message is the output of the probe that tipped the scales.
	Message string
}

// Manager runs probes.
type Manager struct {
	cfg  Config
	http httpprobe.Prober
	tcp  tcpprobe.Prober
	grpc grpcprobe.Prober

	mu      sync.Mutex
	running map[string]context.CancelFunc // by container ID
	wg      sync.WaitGroup
}

// New makes a Manager.
func New(cfg Config) *Manager {
	const followNonLocalRedirects = false
	return &Manager{
		cfg:  cfg,
		http: httpprobe.New(followNonLocalRedirects), tcp: tcpprobe.New(), grpc: grpcprobe.New(),
		running: map[string]context.CancelFunc{},
	}
}

// Start begins to probe a container and reports to report until Stop or the
// end of ctx. It does nothing if the container is probed already. report is
// called from the probe's goroutine and must not block.
func (m *Manager) Start(ctx context.Context, t Target, report func(Result)) {
	c := t.Container
	if c.StartupProbe == nil && c.LivenessProbe == nil && c.ReadinessProbe == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.running[t.ContainerID] != nil {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	m.running[t.ContainerID] = cancel
	m.wg.Go(func() { m.container(ctx, t, report) })
}

// Stop ends the probes of a container. A probe under way is not reported.
func (m *Manager) Stop(containerID string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if cancel := m.running[containerID]; cancel != nil {
		cancel()
		delete(m.running, containerID)
	}
}

// Wait returns when all probes that were stopped have ended.
func (m *Manager) Wait() { m.wg.Wait() }

// container runs startup first, then the two others side by side.
func (m *Manager) container(ctx context.Context, t Target, report func(Result)) {
	if p := t.Container.StartupProbe; p != nil && !t.WasStarted {
		if !m.loop(ctx, t, Startup, p, report) {
			return
		}
	}
	var wg sync.WaitGroup
	if p := t.Container.LivenessProbe; p != nil {
		wg.Go(func() { m.loop(ctx, t, Liveness, p, report) })
	}
	if p := t.Container.ReadinessProbe; p != nil {
		wg.Go(func() { m.loop(ctx, t, Readiness, p, report) })
	}
	wg.Wait()
}

// earlyRetries are the pauses before the first success of a startup or
// readiness probe.
var earlyRetries = []time.Duration{
	20 * time.Millisecond, 40 * time.Millisecond, 80 * time.Millisecond,
	160 * time.Millisecond, 320 * time.Millisecond, 640 * time.Millisecond,
}

// loop probes until the answer is final (startup: any; liveness: failed) or
// ctx ends. It reports true when a startup probe succeeded.
func (m *Manager) loop(ctx context.Context, t Target, kind Kind, p *corev1.Probe, report func(Result)) bool {
	period := seconds(p.PeriodSeconds, 10)
	early := earlyRetries
	if t.Adopted || kind == Liveness {
		early = nil
	}
	if !wait(ctx, firstDelay(t, p, period)) {
		return false
	}
	run := verdict{success: int(max(p.SuccessThreshold, 1)), failure: int(max(p.FailureThreshold, 1))}
	if kind == Readiness && t.WasReady || kind == Liveness {
		run.state = yes
	}
	for {
		ok, message, err := m.once(ctx, t, p)
		if ctx.Err() != nil {
			return false
		}
		if pause, again := retryEarly(&early, ok && err == nil, period); again {
			if !wait(ctx, pause) {
				return false
			}
			continue
		}
		m.event(t, kind, ok, message, err)
		// A probe that could not be made says nothing about the container.
		if err == nil && run.add(ok) {
			report(Result{ContainerID: t.ContainerID, Kind: kind, OK: ok, Message: message})
			if kind == Startup || kind == Liveness && !ok {
				return ok
			}
		}
		if !wait(ctx, period) {
			return false
		}
	}
}

// retryEarly takes the next early pause, if there is one.
func retryEarly(early *[]time.Duration, ok bool, period time.Duration) (time.Duration, bool) {
	if ok || len(*early) == 0 || (*early)[0] >= period {
		*early = nil
		return 0, false
	}
	pause := (*early)[0]
	*early = (*early)[1:]
	return pause, true
}

// firstDelay honours initialDelaySeconds, counted from the container's start,
// and spreads the probes of adopted containers.
func firstDelay(t Target, p *corev1.Probe, period time.Duration) time.Duration {
	delay := max(0, time.Until(t.StartedAt.Add(time.Duration(p.InitialDelaySeconds)*time.Second)))
	if t.Adopted {
		delay += time.Duration(rand.Int64N(int64(period)))
	}
	return delay
}

func seconds(n int32, fallback int64) time.Duration {
	if n <= 0 {
		return time.Duration(fallback) * time.Second
	}
	return time.Duration(n) * time.Second
}

// wait pauses for d; false means that ctx ended.
func wait(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// event tells the user what a probe said, in kubelet's words.
func (m *Manager) event(t Target, kind Kind, ok bool, message string, err error) {
	var text string
	switch {
	case err != nil:
		text = fmt.Sprintf("%s probe errored and resulted in unknown state: %s", kind, err)
	case !ok:
		text = fmt.Sprintf("%s probe failed: %s", kind, message)
	default:
		return
	}
	ref, refErr := reference.GetReference(scheme.Scheme, t.Pod)
	if refErr != nil {
		m.cfg.Log.Warn("Cannot refer to pod in event", "pod", t.Pod.Name, "err", refErr)
		return
	}
	ref.FieldPath = fmt.Sprintf("spec.containers{%s}", t.Container.Name)
	m.cfg.Recorder.Event(ref, corev1.EventTypeWarning, "Unhealthy", text)
}
