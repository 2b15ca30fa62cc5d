package runtime

import (
	"context"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
)

// needRoot skips where the real thing cannot run, and says why.
func needRoot(t testing.TB, programs ...string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	for _, name := range programs {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("needs %s: %v", name, err)
		}
	}
}

// host is one agent's world in temporary directories.
type host struct {
	t      testing.TB
	dir    string
	cfg    Config
	engine *Engine
	pods   int
}

// newHost starts an engine and checks at the end that nothing is left of it.
func newHost(t testing.TB, runtime string) *host {
	t.Helper()
	needRoot(t, "conmon", "busybox", runtime)
	// Not t.TempDir: its removal would fail before our checks say what is left.
	dir, err := os.MkdirTemp("", "lighter-runtime-")
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Base(dir)
	h := &host{t: t, dir: dir, cfg: Config{
		StateDir: filepath.Join(dir, "state"), RunDir: filepath.Join(dir, "run"),
		Runtime: runtime, CgroupRoot: "/" + name,
		Log: slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}}
	makeRootFS(t, filepath.Join(dir, "image"))
	ctx, cancel := context.WithCancel(context.Background())
	engine, err := New(ctx, h.cfg)
	if err != nil {
		cancel()
		t.Fatalf("new engine: %v", err)
	}
	h.engine = engine
	t.Cleanup(func() {
		h.cleanUp()
		cancel()
	})
	return h
}

func (h *host) cleanUp() {
	ctx := context.Background()
	list, err := h.engine.List(ctx)
	if err != nil {
		h.t.Errorf("list: %v", err)
	}
	for _, st := range list {
		if err := h.engine.Delete(ctx, st.Spec.ID); err != nil {
			h.t.Errorf("delete: %v", err)
		}
	}
	pinned, err := h.engine.PinnedPods()
	if err != nil {
		h.t.Errorf("pinned: %v", err)
	}
	for _, uid := range pinned {
		if err := h.engine.UnpinNamespaces(ctx, uid); err != nil {
			h.t.Errorf("unpin: %v", err)
		}
	}
	if err := h.engine.RemovePodCgroup(ctx, "/"); err != nil {
		h.t.Errorf("remove cgroups: %v", err)
	}
	h.checkNothingLeft()
	if err := os.RemoveAll(h.dir); err != nil {
		h.t.Errorf("remove directory: %v", err)
	}
}

// checkNothingLeft looks for mounts, cgroups and processes that carry our name.
func (h *host) checkNothingLeft() {
	h.t.Helper()
	if left := mountsBelow(h.t, h.dir); len(left) > 0 {
		h.t.Errorf("mounts left:\n%s", strings.Join(left, "\n"))
	}
	if left := cgroupsNamed(h.cfg.CgroupRoot); len(left) > 0 {
		h.t.Errorf("cgroups left: %v", left)
	}
	poll(h.t, "processes to end", func() bool { return len(processesNaming(h.dir)) == 0 })
}

func mountsBelow(t testing.TB, dir string) []string {
	t.Helper()
	raw, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for line := range strings.Lines(string(raw)) {
		if strings.Contains(line, dir) {
			out = append(out, strings.TrimSpace(line))
		}
	}
	return out
}

func cgroupsNamed(path string) []string {
	left, _ := filepath.Glob("/sys/fs/cgroup/*" + path)
	top, _ := filepath.Glob("/sys/fs/cgroup" + path)
	return append(left, top...)
}

// processesNaming finds processes whose command line names dir: conmon's does.
func processesNaming(dir string) []string {
	entries, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	var out []string
	for _, path := range entries {
		raw, err := os.ReadFile(path)
		if err == nil && strings.Contains(string(raw), dir) && filepath.Dir(path) != "/proc/self" {
			out = append(out, strings.ReplaceAll(string(raw), "\x00", " "))
		}
	}
	sort.Strings(out)
	return out
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

// makeRootFS builds an image of busybox and two files of users.
func makeRootFS(t testing.TB, dir string) {
	t.Helper()
	for _, name := range []string{"bin", "etc", "tmp", "proc", "sys", "dev", "data"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(busybox)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{
		"etc/passwd":    "root:x:0:0:root:/:/bin/sh\nweb:x:101:102:web:/:/bin/sh\n",
		"etc/group":     "root:x:0:\nweb:x:102:\nextra:x:103:web\n",
		"data/seed.txt": "from the image\n",
		"bin/busybox":   string(raw),
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range strings.Fields("sh cat echo sleep id env touch dd stty ls kill head tail true false nc hostname seq grep trap mount") {
		if err := os.Symlink("busybox", filepath.Join(dir, "bin", name)); err != nil {
			t.Fatal(err)
		}
	}
	// Over what the umask took.
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Chmod(filepath.Join(dir, "tmp"), 0o1777); err != nil {
		t.Fatal(err)
	}
}

// spec gives a container of a pod of its own; the caller changes it at will.
func (h *host) spec(command ...string) ContainerSpec {
	h.t.Helper()
	h.pods++
	uid := filepath.Base(h.dir) + "-" + string(rune('a'+h.pods%26)) + string(rune('a'+h.pods/26))
	scratch := filepath.Join(h.dir, "scratch", uid)
	for _, name := range []string{"up", "work"} {
		if err := os.MkdirAll(filepath.Join(scratch, name), 0o755); err != nil {
			h.t.Fatal(err)
		}
	}
	spec := ContainerSpec{
		ID: uid + "_main_0", PodUID: uid, PodNamespace: "default", PodName: "p" + uid, Name: "main",
		ImageRef: "test", Image: ocispec.ImageConfig{Env: []string{"FROM_IMAGE=1", "BOTH=image"}},
		RootFS: []mount.Mount{{Type: "overlay", Source: "overlay", Options: []string{
			"lowerdir=" + filepath.Join(h.dir, "image"), "upperdir=" + filepath.Join(scratch, "up"),
			"workdir=" + filepath.Join(scratch, "work"),
		}}},
		Container:    &corev1.Container{Name: "main", Command: command, TerminationMessagePath: "/dev/termination-log"},
		Env:          []string{"BOTH=pod"},
		Hostname:     "box",
		CgroupParent: "pods/" + uid,
		LogPath:      filepath.Join(h.dir, "logs", uid, "main", "0.log"),
	}
	ns, err := h.engine.PinNamespaces(context.Background(), uid, "box", struct{ Net, IPC, UTS bool }{true, true, true})
	if err != nil {
		h.t.Fatal(err)
	}
	spec.Namespaces = ns
	if err := h.engine.PodCgroup(context.Background(), spec.CgroupParent, nil); err != nil {
		h.t.Fatal(err)
	}
	return spec
}

func (h *host) start(spec ContainerSpec) string {
	h.t.Helper()
	if err := h.engine.Create(h.t.Context(), spec); err != nil {
		h.t.Fatalf("create: %v", err)
	}
	if err := h.engine.Start(h.t.Context(), spec.ID); err != nil {
		h.t.Fatalf("start: %v", err)
	}
	return spec.ID
}

func (h *host) waitFor(id string, state State) Status {
	h.t.Helper()
	var st Status
	poll(h.t, "state "+string(state), func() bool {
		var err error
		if st, err = h.engine.Status(context.Background(), id); err != nil {
			h.t.Fatalf("status: %v", err)
		}
		return st.State == state
	})
	return st
}

// run runs a container to its end and returns what it printed.
func (h *host) run(spec ContainerSpec) (Status, string) {
	h.t.Helper()
	st := h.waitFor(h.start(spec), StateExited)
	return st, h.output(spec)
}

// output is the log without CRI's prefix.
func (h *host) output(spec ContainerSpec) string {
	h.t.Helper()
	raw, err := os.ReadFile(spec.LogPath)
	if err != nil {
		h.t.Fatal(err)
	}
	var out strings.Builder
	for line := range strings.Lines(string(raw)) {
		if parts := strings.SplitN(line, " ", 4); len(parts) == 4 {
			out.WriteString(parts[3])
		}
	}
	return out.String()
}

func poll(t testing.TB, what string, done func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !done() {
		if time.Now().After(deadline) {
			t.Fatalf("waited too long for %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}
