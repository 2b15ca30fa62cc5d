package pod

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"lighter.dev/lighter/agent/runtime"
)

// Manager holds one worker for each pod of this host.
type Manager struct {
	cfg     Config
	began   time.Time
	removed func(types.UID)

	mu      sync.Mutex
	workers map[types.UID]*worker
	adopted map[types.UID][]runtime.Status // found at start, not claimed yet
	ctx     context.Context                // of the workers; set by Start
	wg      sync.WaitGroup
}

// relistPeriod: events of the engine may be lost; a look at everything now and
// then costs little and means that a lost event only costs time.
const relistPeriod = 30 * time.Second

// New makes a Manager. Start has to be called before anything else.
func New(cfg Config) *Manager {
	if cfg.Services == nil {
		cfg.Services = func() []*corev1.Service { return nil }
	}
	if cfg.Allocatable == nil {
		cfg.Allocatable = func() corev1.ResourceList { return nil }
	}
	if cfg.HostIPs == nil {
		cfg.HostIPs = func() []netip.Addr { return nil }
	}
	if cfg.ClusterDNS == nil {
		cfg.ClusterDNS = func() []netip.Addr { return nil }
	}
	return &Manager{
		cfg: cfg, began: time.Now(), removed: func(types.UID) {},
		workers: map[types.UID]*worker{}, adopted: map[types.UID][]runtime.Status{},
	}
}

// OnRemoved sets what is called when nothing of a pod is left on this node. It
// has to be set before Start.
func (m *Manager) OnRemoved(f func(uid types.UID)) { m.removed = f }

// Start looks at what runs already, so that Update can adopt it, and follows
// the engine's events until ctx ends.
func (m *Manager) Start(ctx context.Context) error {
	all, err := m.cfg.Engine.List(ctx)
	if err != nil {
		return fmt.Errorf("list containers: %w", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ctx = ctx
	for _, st := range all {
		uid := podOf(st.Spec.ID)
		m.adopted[uid] = append(m.adopted[uid], st)
	}
	if len(all) > 0 {
		m.cfg.Log.Info("Found containers of an earlier run", "containers", len(all), "pods", len(m.adopted))
	}
	m.wg.Go(func() { m.follow(ctx) })
	return nil
}

// Wait returns when all workers have ended, which they do when the context of
// Start does. Containers run on.
func (m *Manager) Wait() { m.wg.Wait() }

// Update says what is wanted of a pod: any version of its object. The first
// time, it gets a worker.
func (m *Manager) Update(pod *corev1.Pod) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if w := m.workers[pod.UID]; w != nil {
		w.post(func() {
			if !w.view.Gone {
				w.want(w.viewOf(pod))
			}
		})
		return
	}
	if isTerminal(pod.Status.Phase) && pod.DeletionTimestamp == nil && len(m.adopted[pod.UID]) == 0 {
		return // it ended long ago; nothing of it is here
	}
	m.begin(View{Pod: pod})
}

// Remove says that the API has no such pod any more. It reports whether
// there is anything to clean up; if so, the OnRemoved function follows.
func (m *Manager) Remove(uid types.UID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	w := m.workers[uid]
	if w == nil {
		return false
	}
	w.post(func() { w.want(View{Pod: w.view.Pod, Gone: true}) })
	return true
}

// begin gives a pod its worker. The caller holds mu.
func (m *Manager) begin(v View) {
	w := newWorker(m, v.Pod)
	if !v.Gone {
		v = w.viewOf(v.Pod)
	}
	w.view = v
	found := m.adopted[v.Pod.UID]
	delete(m.adopted, v.Pod.UID)
	if len(found) > 0 {
		w.adopt(found)
	} else if !v.Deleted() && v.Pod.Status.StartTime == nil {
		if f := admit(v.Pod, m.others(v.Pod.UID), m.cfg.Allocatable()); f != nil {
			w.st.Failed = f
			w.log.Warn("Pod refused", "reason", f.Reason, "message", f.Message)
			w.event(corev1.EventTypeWarning, f.Reason, f.Message)
		}
	}
	m.workers[v.Pod.UID] = w
	m.wg.Go(func() { w.run(m.ctx) })
}

// others are the pods that take up room on this host.
func (m *Manager) others(uid types.UID) []*corev1.Pod {
	var out []*corev1.Pod
	for other, w := range m.workers {
		p := w.picture.Load()
		if other == uid || p != nil && (isTerminal(p.Status.Phase) || p.Failed) {
			continue
		}
		out = append(out, w.pod())
	}
	return out
}

// finished drops a worker whose pod is gone.
func (m *Manager) finished(w *worker) {
	m.mu.Lock()
	delete(m.workers, w.uid)
	m.mu.Unlock()
	m.cfg.Statuses.Forget(w.uid)
	m.removed(w.uid)
	w.log.Info("Pod is gone")
}

// follow hands the engine's events to the workers.
func (m *Manager) follow(ctx context.Context) {
	relist := time.NewTicker(relistPeriod)
	defer relist.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case id := <-m.cfg.Engine.Events():
			m.changed(ctx, id)
		case <-relist.C:
			m.relist(ctx)
		}
	}
}

func (m *Manager) changed(ctx context.Context, id string) {
	m.mu.Lock()
	w := m.workers[podOf(id)]
	m.mu.Unlock()
	if w != nil {
		w.post(func() { w.refresh(ctx, id) })
	}
}

// relist makes workers look whose picture of a container is out of date.
func (m *Manager) relist(ctx context.Context) {
	all, err := m.cfg.Engine.List(ctx)
	if err != nil {
		m.cfg.Log.Warn("Cannot list containers", "err", err)
		return
	}
	for _, st := range all {
		if st.State == runtime.StateExited || st.State == runtime.StateUnknown {
			m.changed(ctx, st.Spec.ID)
		}
	}
}

// Sweep removes what no pod of this host owns: containers, snapshots, volumes,
// network attachments, namespaces. It must only be called when all pods are
// known, that is after a successful list from the API.
func (m *Manager) Sweep(ctx context.Context) error {
	m.mu.Lock()
	for uid, found := range m.adopted {
		m.cfg.Log.Info("Removing containers of a pod that is not assigned here", "uid", uid, "containers", len(found))
		m.begin(View{Pod: orphan(uid, found), Gone: true})
	}
	m.mu.Unlock()
	known := m.known()
	var errs []error
	ids, err := m.cfg.Images.Containers(ctx)
	errs = append(errs, err)
	for _, id := range ids {
		if !known[podOf(id)] {
			errs = append(errs, m.cfg.Images.Remove(ctx, id))
		}
	}
	errs = append(errs, m.cfg.Volumes.Sweep(ctx, func(uid types.UID) bool { return known[uid] }))
	errs = append(errs, m.cfg.Network.Keep(ctx, keys(known)))
	pinned, err := m.cfg.Engine.PinnedPods()
	errs = append(errs, err)
	for _, uid := range pinned {
		if !known[types.UID(uid)] {
			errs = append(errs, m.cfg.Engine.UnpinNamespaces(ctx, uid))
		}
	}
	return errors.Join(errs...)
}

func keys(set map[types.UID]bool) []string {
	out := make([]string, 0, len(set))
	for uid := range set {
		out = append(out, string(uid))
	}
	return out
}

func (m *Manager) known() map[types.UID]bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := map[types.UID]bool{}
	for uid := range m.workers {
		out[uid] = true
	}
	for uid := range m.adopted {
		out[uid] = true
	}
	return out
}

// orphanGrace is how long containers may take that nobody knows any more.
const orphanGrace = int64(2)

// orphan makes up the pod of containers that were found without one.
func orphan(uid types.UID, found []runtime.Status) *corev1.Pod {
	grace := orphanGrace
	pod := &corev1.Pod{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{
			UID: uid, Namespace: found[0].Spec.PodNamespace, Name: found[0].Spec.PodName,
			DeletionGracePeriodSeconds: &grace,
		},
	}
	seen := map[string]bool{}
	for _, st := range found {
		if !seen[st.Spec.Name] && st.Spec.Container != nil {
			seen[st.Spec.Name] = true
			pod.Spec.Containers = append(pod.Spec.Containers, *st.Spec.Container)
		}
	}
	return pod
}
