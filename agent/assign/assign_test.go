package assign

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
)

// engine is a Pods that has pods and nothing else.
type engine struct {
	mu      sync.Mutex
	pods    map[types.UID]string // UID → name
	removed func(types.UID)
	swept   int
}

func (e *engine) OnRemoved(f func(types.UID)) { e.removed = f }
func (e *engine) Start(context.Context) error { return nil }
func (e *engine) Wait()                       {}
func (e *engine) Sweep(context.Context) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.swept++
	return nil
}
func (e *engine) Update(pod *corev1.Pod) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.pods[pod.UID] = pod.Name
}
func (e *engine) Remove(uid types.UID) bool {
	e.mu.Lock()
	_, had := e.pods[uid]
	delete(e.pods, uid)
	e.mu.Unlock()
	if had {
		e.removed(uid)
	}
	return had
}

func (e *engine) names() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	var out []string
	for _, name := range e.pods {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

func pod(name, uid, node string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, UID: types.UID(uid)}, Spec: corev1.PodSpec{NodeName: node}}
}

// start runs an Assigner on dir until the test ends or stop is called.
func start(t *testing.T, dir string, objects ...*corev1.Pod) (*fake.Clientset, *engine, func()) {
	t.Helper()
	client := fake.NewClientset()
	for _, p := range objects {
		if err := client.Tracker().Add(p); err != nil {
			t.Fatal(err)
		}
	}
	pods := &engine{pods: map[types.UID]string{}}
	a, err := New(Config{Client: client, NodeName: "host-1", Dir: dir, Pods: pods, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return client, pods, stop
}

func eventually(t *testing.T, what string, check func() error) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (e *engine) has(want ...string) func() error {
	return func() error {
		if got := e.names(); !slices.Equal(got, want) {
			return fmt.Errorf("the pods are %v, want %v", got, want)
		}
		return nil
	}
}

func checkpointed(dir string, want ...string) func() error {
	return func() error {
		files, err := filepath.Glob(filepath.Join(dir, "*"))
		if err != nil {
			return err
		}
		got := make([]string, 0, len(files))
		for _, f := range files {
			got = append(got, filepath.Base(f))
		}
		if !slices.Equal(got, want) {
			return fmt.Errorf("the folder has %v, want %v", got, want)
		}
		return nil
	}
}

func TestFollowsTheAPI(t *testing.T) {
	dir := t.TempDir()
	client, pods, _ := start(t, dir, pod("a", "1", "host-1"))
	eventually(t, "the pod that is there", pods.has("a"))
	if _, err := client.CoreV1().Pods("ns").Create(t.Context(), pod("b", "2", "host-1"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a new pod", pods.has("a", "b"))
	eventually(t, "both are on the disk", checkpointed(dir, "1.json", "2.json"))
	if err := client.CoreV1().Pods("ns").Delete(t.Context(), "a", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a pod that is deleted", pods.has("b"))
	eventually(t, "its checkpoint goes", checkpointed(dir, "2.json"))
}

// TestRemembers: what an earlier agent knew runs at once; what the API does not
// know any more is given up once it has been asked, and not before.
func TestRemembers(t *testing.T) {
	dir := t.TempDir()
	_, pods, stop := start(t, dir, pod("kept", "1", "host-1"), pod("lost", "2", "host-1"))
	eventually(t, "the first agent", pods.has("kept", "lost"))
	eventually(t, "its checkpoints", checkpointed(dir, "1.json", "2.json"))
	stop()

	store, err := openCheckpoints(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if got := store.load(); len(got) != 2 {
		t.Fatalf("remembered %v", got)
	}
	_, pods, _ = start(t, dir, pod("kept", "1", "host-1"))
	eventually(t, "the second agent", pods.has("kept"))
	eventually(t, "its checkpoints", checkpointed(dir, "1.json"))
	eventually(t, "leftovers are swept", func() error {
		pods.mu.Lock()
		defer pods.mu.Unlock()
		if pods.swept != 1 {
			return fmt.Errorf("swept %d times", pods.swept)
		}
		return nil
	})
}

// TestNamesake: a pod that was deleted and made anew under its name, unseen.
func TestNamesake(t *testing.T) {
	pods := &engine{pods: map[types.UID]string{}}
	a, err := New(Config{Client: fake.NewClientset(), NodeName: "host-1", Dir: t.TempDir(), Pods: pods, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	pods.OnRemoved(a.removed)
	a.update(nil, pod("a", "1", "host-1"))
	a.update(pod("a", "1", "host-1"), pod("a", "2", "host-1"))
	if _, old := pods.pods["1"]; old || pods.pods["2"] != "a" {
		t.Errorf("the pods are %v", pods.pods)
	}
	if err := checkpointed(a.store.dir, "2.json")(); err != nil {
		t.Error(err)
	}
}

// TestBadCheckpoints are left out, and removed: the API has the pods.
func TestBadCheckpoints(t *testing.T) {
	dir := t.TempDir()
	store, err := openCheckpoints(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := store.save(pod("good", "1", "host-1")); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"2.json": "{", "3.json": `{"metadata":{"uid":"4"}}`, "5.tmp": "cut off", "6.json": "",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got := store.load()
	if len(got) != 1 || got[0].Name != "good" {
		t.Errorf("loaded %v", got)
	}
	if err := checkpointed(dir, "1.json")(); err != nil {
		t.Error(err)
	}
	if info, err := os.Stat(filepath.Join(dir, "1.json")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode: %v, %v", info.Mode(), err)
	}
}
