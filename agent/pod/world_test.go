package pod

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"

	"lighter.dev/lighter/agent/image"
	"lighter.dev/lighter/agent/objects"
	"lighter.dev/lighter/agent/probe"
	"lighter.dev/lighter/agent/runtime"
)

// world is a host that works like the real one, in memory: an engine, an image
// store, a network, volumes, objects and an API that takes status. It outlives
// any Manager, and it can kill the agent at the n-th thing it does.
type world struct {
	t  *testing.T
	mu sync.Mutex

	cgroups, spaces, attached, volumes map[string]bool
	snapshots                          map[string]bool
	containers                         map[string]*runtime.Status
	mounted                            map[string]string        // snapshot to container
	clients                            map[string]chan struct{} // closed when one attaches
	expired                            map[types.UID]bool
	events                             chan string

	secrets    map[string]*corev1.Secret
	configMaps map[string]*corev1.ConfigMap
	changed    map[types.UID]func()

	// imageErr and attachErr make the next calls fail; ignoreTERM makes
	// containers need SIGKILL; create fails Create.
	imageErr, attachErr, createErr error
	ignoreTERM                     bool

	statuses map[types.UID]corev1.PodStatus
	history  []corev1.PodPhase
	deleted  map[types.UID]bool
	trace    []string
	probes   map[string]func(probe.Result)

	// fuse is how many things may still happen before the agent dies; negative
	// is for ever.
	fuse int
	die  context.CancelFunc
	dead bool
}

func newWorld(t *testing.T) *world {
	return &world{
		t: t, cgroups: map[string]bool{}, spaces: map[string]bool{}, attached: map[string]bool{},
		volumes: map[string]bool{}, snapshots: map[string]bool{}, containers: map[string]*runtime.Status{},
		mounted: map[string]string{}, clients: map[string]chan struct{}{}, expired: map[types.UID]bool{},
		events:  make(chan string, 1000),
		secrets: map[string]*corev1.Secret{}, configMaps: map[string]*corev1.ConfigMap{}, changed: map[types.UID]func(){},
		statuses: map[types.UID]corev1.PodStatus{}, deleted: map[types.UID]bool{}, probes: map[string]func(probe.Result){},
		fuse: -1,
	}
}

// agent starts a Manager on this world.
func (w *world) agent(ctx context.Context) *Manager {
	ctx, cancel := context.WithCancel(ctx)
	w.mu.Lock()
	w.die, w.dead = cancel, false
	w.mu.Unlock()
	m := New(Config{
		Engine: w, Images: images{w}, Network: network{w}, Volumes: volumes{w, w.t.TempDir()}, Objects: w,
		Probes: probes{w}, Statuses: apiSide{w}, Recorder: &record.FakeRecorder{}, Log: slog.New(slog.DiscardHandler),
		NodeName: "node-1", ClusterDomain: "cluster.local", LogDir: w.t.TempDir(),
		HostIPs: func() []netip.Addr { return []netip.Addr{netip.MustParseAddr("192.0.2.1")} },
	})
	if err := m.Start(ctx); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(cancel)
	return m
}

var errKilled = errors.New("the agent is dead")

// do is one effect on the world. The agent may die just before or just after it.
func (w *world) do(what string, effect func() error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.burn() {
		return errKilled
	}
	w.trace = append(w.trace, what)
	if err := effect(); err != nil {
		return err
	}
	if w.burn() {
		return errKilled
	}
	return nil
}

func (w *world) burn() bool {
	if w.dead {
		return true
	}
	if w.fuse == 0 {
		w.fuse, w.dead = -1, true
		w.die()
		return true
	}
	if w.fuse > 0 {
		w.fuse--
	}
	return false
}

func (w *world) PinNamespaces(_ context.Context, uid, _ string, want Want) (runtime.Namespaces, error) {
	err := w.do("pin", func() error { w.spaces[uid] = true; return nil })
	ns := runtime.Namespaces{}
	if want.Net {
		ns.Net = "/ns/" + uid
	}
	return ns, err
}

func (w *world) UnpinNamespaces(_ context.Context, uid string) error {
	return w.do("unpin", func() error {
		if w.attached[uid] {
			return errors.New("still attached")
		}
		delete(w.spaces, uid)
		return nil
	})
}

func (w *world) PinnedPods() ([]string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Collect(maps.Keys(w.spaces)), nil
}

func (w *world) PodCgroup(_ context.Context, path string, _ *corev1.ResourceRequirements) error {
	return w.do("cgroup", func() error { w.cgroups[path] = true; return nil })
}

func (w *world) RemovePodCgroup(_ context.Context, path string) error {
	return w.do("uncgroup", func() error {
		for id, c := range w.containers {
			if c.Spec.CgroupParent == path && c.State == runtime.StateRunning {
				return fmt.Errorf("container %s is in the cgroup", id)
			}
		}
		delete(w.cgroups, path)
		return nil
	})
}

func (w *world) Create(_ context.Context, spec runtime.ContainerSpec) error {
	return w.do("create "+spec.Name, func() error {
		switch {
		case w.createErr != nil:
			return w.createErr
		case !w.cgroups[spec.CgroupParent], !w.attached[spec.PodUID], !w.volumes[spec.PodUID], !w.snapshots[spec.RootFSKey()]:
			return fmt.Errorf("container %s was created before its pod was set up", spec.ID)
		case w.containers[spec.ID] != nil:
			return fmt.Errorf("container %s: %w", spec.ID, errdefs.ErrAlreadyExists)
		case w.mounted[spec.RootFSKey()] != "":
			return fmt.Errorf("the file system of %s is mounted by %s", spec.ID, w.mounted[spec.RootFSKey()])
		}
		w.mounted[spec.RootFSKey()] = spec.ID
		w.clients[spec.ID] = make(chan struct{})
		w.containers[spec.ID] = &runtime.Status{Spec: spec, State: runtime.StateCreated, CreatedAt: time.Now()}
		return nil
	})
}

func (w *world) Start(_ context.Context, id string) error {
	return w.do("start", func() error {
		c := w.containers[id]
		c.State, c.StartedAt = runtime.StateRunning, time.Now()
		w.events <- id
		return nil
	})
}

func (w *world) Signal(_ context.Context, id string, sig syscall.Signal) error {
	return w.do(sig.String(), func() error {
		c := w.containers[id]
		if c == nil || c.State == runtime.StateExited {
			return errdefs.ErrFailedPrecondition
		}
		if sig == syscall.SIGKILL || !w.ignoreTERM {
			w.end(id, 128+int(sig))
		}
		return nil
	})
}

// end is for callers that hold mu.
func (w *world) end(id string, code int) {
	c := w.containers[id]
	c.State, c.ExitCode, c.FinishedAt = runtime.StateExited, code, time.Now()
	w.events <- id
}

// exit ends a container on its own.
func (w *world) exit(id string, code int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.end(id, code)
}

func (w *world) Delete(_ context.Context, id string) error {
	return w.do("delete", func() error { w.unmount(id); delete(w.containers, id); return nil })
}

// unmount is for callers that hold mu.
func (w *world) unmount(id string) {
	maps.DeleteFunc(w.mounted, func(_, user string) bool { return user == id })
}

func (w *world) ReleaseRootFS(_ context.Context, id string) error {
	return w.do("release", func() error {
		switch c := w.containers[id]; {
		case c == nil:
			return errdefs.ErrNotFound
		case c.State == runtime.StateRunning || c.State == runtime.StateCreated:
			return errdefs.ErrFailedPrecondition
		}
		w.unmount(id)
		return nil
	})
}

func (w *world) WaitAttached(ctx context.Context, id string) error {
	w.mu.Lock()
	client := w.clients[id]
	w.mu.Unlock()
	select {
	case <-client:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (w *world) Status(_ context.Context, id string) (runtime.Status, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if c := w.containers[id]; c != nil {
		return *c, nil
	}
	return runtime.Status{}, errdefs.ErrNotFound
}

func (w *world) List(context.Context) ([]runtime.Status, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []runtime.Status
	for _, id := range slices.Sorted(maps.Keys(w.containers)) {
		out = append(out, *w.containers[id])
	}
	return out, nil
}

func (w *world) Events() <-chan string { return w.events }

func (w *world) ExecSync(context.Context, string, []string, time.Duration) ([]byte, []byte, int, error) {
	return nil, nil, 0, w.do("exec", func() error { return nil })
}

type images struct{ *world }

func (w images) Ensure(_ context.Context, req image.Request) (image.Image, error) {
	if req.Namespace != "default" {
		w.t.Errorf("image asked for in namespace %q, want the pod's", req.Namespace)
	}
	err := w.do("pull", func() error { return w.imageErr })
	if req.Pin == "" {
		req.Pin = "sha256:1"
	}
	return image.Image{Name: req.Ref, Target: req.Pin}, err
}

func (w images) Prepare(_ context.Context, id string, _ image.Image, _ bool) ([]mount.Mount, error) {
	return nil, w.do("prepare", func() error { w.snapshots[id] = true; return nil })
}

func (w images) Remove(_ context.Context, id string) error {
	return w.do("snapshot", func() error {
		for _, c := range w.containers {
			if c.Spec.RootFSKey() == id {
				return fmt.Errorf("snapshot %s is in use by container %s", id, c.Spec.ID)
			}
		}
		delete(w.snapshots, id)
		return nil
	})
}

func (w images) Containers(context.Context) ([]string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Collect(maps.Keys(w.snapshots)), nil
}

type network struct{ *world }

func (w network) Attach(_ context.Context, s Sandbox) ([]netip.Addr, error) {
	return []netip.Addr{netip.MustParseAddr("10.42.0.7")}, w.do("attach", func() error {
		if w.attachErr != nil {
			return w.attachErr
		}
		if !w.spaces[s.PodUID] {
			return errors.New("no namespace")
		}
		w.attached[s.PodUID] = true
		return nil
	})
}

func (w network) Detach(_ context.Context, s Sandbox) error {
	return w.do("detach", func() error { delete(w.attached, s.PodUID); return nil })
}

func (w network) Keep(_ context.Context, uids []string) error {
	return w.do("keep", func() error {
		maps.DeleteFunc(w.attached, func(uid string, _ bool) bool { return !slices.Contains(uids, uid) })
		return nil
	})
}

type volumes struct {
	*world
	dir string
}

func (w volumes) Setup(ctx context.Context, pod *corev1.Pod) (time.Time, error) {
	for _, v := range pod.Spec.Volumes {
		if v.ConfigMap != nil {
			if _, err := w.ConfigMap(ctx, pod.Namespace, v.ConfigMap.Name); err != nil {
				return time.Time{}, err
			}
		}
	}
	return time.Time{}, w.do("mount", func() error { w.volumes[string(pod.UID)] = true; return nil })
}

func (w volumes) Mounts(*corev1.Pod, *corev1.Container, []corev1.EnvVar) ([]runtime.Mount, error) {
	return nil, nil
}

func (w volumes) Teardown(_ context.Context, uid types.UID) error {
	return w.do("unmount", func() error { delete(w.volumes, string(uid)); return nil })
}

func (w volumes) Sweep(_ context.Context, keep func(types.UID) bool) error {
	return w.do("sweep", func() error {
		maps.DeleteFunc(w.volumes, func(uid string, _ bool) bool { return !keep(types.UID(uid)) })
		return nil
	})
}

func (w volumes) PodDir(uid types.UID) string { return w.dir + "/" + string(uid) }

func (w *world) Use(uid types.UID, _ []objects.Ref, changed func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.changed[uid] = changed
}

func (w *world) Release(uid types.UID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.changed, uid)
}

func (w *world) ConfigMap(_ context.Context, _, name string) (*corev1.ConfigMap, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if cm := w.configMaps[name]; cm != nil {
		return cm, nil
	}
	return nil, apierrors.NewNotFound(corev1.Resource("configmaps"), name)
}

func (w *world) Secret(_ context.Context, _, name string) (*corev1.Secret, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if s := w.secrets[name]; s != nil {
		return s, nil
	}
	return nil, apierrors.NewNotFound(corev1.Resource("secrets"), name)
}

// addConfigMap makes one appear, as the watch would tell.
func (w *world) addConfigMap(name string, data map[string]string) {
	w.mu.Lock()
	w.configMaps[name] = &corev1.ConfigMap{Data: data}
	calls := slices.Collect(maps.Values(w.changed))
	w.mu.Unlock()
	for _, call := range calls {
		call()
	}
}

type probes struct{ *world }

func (w probes) Start(_ context.Context, t probe.Target, report func(probe.Result)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.probes[t.ContainerID] == nil {
		w.probes[t.ContainerID] = report
	}
}

func (w probes) Stop(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.probes, id)
}

func (w *world) Set(pod *corev1.Pod, wanted corev1.PodStatus) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.statuses[pod.UID] = wanted
	if n := len(w.history); n == 0 || w.history[n-1] != wanted.Phase {
		w.history = append(w.history, wanted.Phase)
	}
}

func (w *world) Flush(context.Context, types.UID) error { return nil }

func (w *world) Forget(types.UID) {}
