package pod_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/record"

	"lighter.dev/lighter/agent/image"
	"lighter.dev/lighter/agent/objects"
	"lighter.dev/lighter/agent/pod"
	"lighter.dev/lighter/agent/probe"
	"lighter.dev/lighter/agent/runtime"
	"lighter.dev/lighter/agent/volume"
)

// host is a node without an API: the real engine, image store and volumes, and
// a network that only pretends.
type host struct {
	dir    string
	client *fake.Clientset
	store  *image.Store
	events *record.FakeRecorder

	mu       sync.Mutex
	statuses map[types.UID]corev1.PodStatus
	changed  chan struct{}
	gone     map[types.UID]bool
}

// agent is one run of the agent on a host.
type agent struct {
	*host
	pods   *pod.Manager
	engine *runtime.Engine
	stop   func()
}

func newHost(t testing.TB, objs ...*corev1.ConfigMap) *host {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	for _, program := range []string{"runc", "conmon"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("needs %s: %v", program, err)
		}
	}
	dir, err := os.MkdirTemp("", "lighter-pod")
	if err != nil {
		t.Fatal(err)
	}
	h := &host{
		dir: dir, client: fake.NewClientset(), events: record.NewFakeRecorder(1000),
		statuses: map[types.UID]corev1.PodStatus{}, changed: make(chan struct{}, 1), gone: map[types.UID]bool{},
	}
	for _, o := range objs {
		if _, err := h.client.CoreV1().ConfigMaps(o.Namespace).Create(t.Context(), o, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	h.store, err = image.Open(t.Context(), image.Config{Root: filepath.Join(dir, "images"), Snapshotter: snapshotter(t, dir)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.store.Import(t.Context(), busyboxArchive(t), "busybox", ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.store.Close(); err != nil {
			t.Error(err)
		}
		if left := mountsBelow(t, dir); len(left) > 0 {
			t.Errorf("mounts left behind: %v", left)
			return
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return h
}

// snapshotter is overlayfs, unless the test's folder cannot carry one.
func snapshotter(t testing.TB, dir string) string {
	t.Helper()
	probe := filepath.Join(dir, "probe")
	for _, d := range []string{"l", "u", "w", "m"} {
		if err := os.MkdirAll(filepath.Join(probe, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	opts := fmt.Sprintf("lowerdir=%[1]s/l,upperdir=%[1]s/u,workdir=%[1]s/w", probe)
	if err := exec.Command("mount", "-t", "overlay", "overlay", "-o", opts, probe+"/m").Run(); err != nil {
		return image.Native
	}
	if err := exec.Command("umount", probe+"/m").Run(); err != nil {
		t.Fatal(err)
	}
	return image.Overlayfs
}

func (h *host) start(t testing.TB) *agent {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	log := slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelInfo}))
	engine, err := runtime.New(ctx, runtime.Config{
		StateDir: filepath.Join(h.dir, "engine"), RunDir: filepath.Join(h.dir, "run"), Runtime: "runc",
		CgroupRoot: "/" + filepath.Base(h.dir), Log: log,
	})
	if err != nil {
		t.Fatal(err)
	}
	cache := objects.New(ctx, h.client, log)
	vols, err := volume.New(volume.Config{Root: filepath.Join(h.dir, "pods"), Objects: cache, NodeName: "node-1", Log: log})
	if err != nil {
		t.Fatal(err)
	}
	probes := probe.New(probe.Config{Exec: engine.ExecSync, Recorder: h.events, Log: log})
	m := pod.New(pod.Config{
		Engine: engine, Images: h.store, Network: loopback{}, Volumes: vols, Objects: cache, Probes: probes, Statuses: h,
		Recorder: h.events, Log: log, NodeName: "node-1", LogDir: filepath.Join(h.dir, "log"), ClusterDomain: "cluster.local",
		HostsFile: "/etc/hosts", ResolvConf: "/etc/resolv.conf",
	})
	m.OnRemoved(func(uid types.UID) {
		h.mu.Lock()
		h.gone[uid] = true
		h.mu.Unlock()
		h.wake()
	})
	if err := m.Start(ctx); err != nil {
		t.Fatal(err)
	}
	a := &agent{host: h, pods: m, engine: engine, stop: func() { cancel(); m.Wait() }}
	t.Cleanup(func() {
		a.stop()
		if err := engine.RemovePodCgroup(context.Background(), "/"); err != nil {
			t.Errorf("remove cgroups: %v", err)
		}
	})
	return a
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	if testing.Verbose() {
		fmt.Fprintf(os.Stderr, "%s", p)
	}
	return len(p), nil
}

// loopback is a network of one.
type loopback struct{}

func (loopback) Attach(_ context.Context, s pod.Sandbox) ([]netip.Addr, error) {
	if out, err := exec.Command("nsenter", "--net="+s.NetNS, "ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		return nil, errors.New(string(out))
	}
	return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
}

func (loopback) Detach(context.Context, pod.Sandbox) error { return nil }
func (loopback) Keep(context.Context, []string) error      { return nil }
func (h *host) Flush(context.Context, types.UID) error     { return nil }
func (h *host) Delete(context.Context, *corev1.Pod) error  { return nil }
func (h *host) Expire(context.Context, *corev1.Pod) error  { return nil }
func (h *host) Forget(types.UID)                           {}
func (h *host) wake() {
	select {
	case h.changed <- struct{}{}:
	default:
	}
}

func (h *host) Set(p *corev1.Pod, st corev1.PodStatus) {
	h.mu.Lock()
	h.statuses[p.UID] = st
	h.mu.Unlock()
	h.wake()
}

// waitFor waits until the pod's status satisfies done.
func (h *host) waitFor(t testing.TB, uid types.UID, what string, done func(corev1.PodStatus) bool) corev1.PodStatus {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for {
		h.mu.Lock()
		st := h.statuses[uid]
		h.mu.Unlock()
		if done(st) {
			return st
		}
		select {
		case <-h.changed:
		case <-deadline:
			t.Fatalf("pod is not %s; its status is %+v\nevents: %v", what, st, h.drain())
		}
	}
}

func (h *host) waitGone(t testing.TB, uid types.UID) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for {
		h.mu.Lock()
		gone := h.gone[uid]
		h.mu.Unlock()
		if gone {
			return
		}
		select {
		case <-h.changed:
		case <-deadline:
			t.Fatalf("pod is not gone; events: %v", h.drain())
		}
	}
}

func (h *host) drain() []string {
	var out []string
	for {
		select {
		case e := <-h.events.Events:
			out = append(out, e)
		default:
			return out
		}
	}
}

func mountsBelow(t testing.TB, dir string) []string {
	t.Helper()
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	var out []string
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if fields := strings.Fields(lines.Text()); strings.HasPrefix(fields[4], dir+"/") {
			out = append(out, fields[4])
		}
	}
	return out
}

// busyboxPod is a pod of busybox containers running shell scripts.
func busyboxPod(name string, scripts ...string) *corev1.Pod {
	grace := int64(3)
	p := &corev1.Pod{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", UID: uuid.NewUUID()},
		Spec:       corev1.PodSpec{RestartPolicy: corev1.RestartPolicyAlways, TerminationGracePeriodSeconds: &grace},
	}
	for i, script := range scripts {
		p.Spec.Containers = append(p.Spec.Containers, corev1.Container{
			Name: fmt.Sprintf("c%d", i), Image: "busybox", ImagePullPolicy: corev1.PullIfNotPresent,
			Command: []string{"sh", "-c", script}, TerminationMessagePath: "/dev/termination-log",
		})
	}
	return p
}

func isReady(st corev1.PodStatus) bool {
	for _, c := range st.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}
