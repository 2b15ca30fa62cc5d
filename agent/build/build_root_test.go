package build

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"lighter.dev/lighter/agent/build/buildclient"
	"lighter.dev/lighter/api/v1alpha1"
)

type plainResult struct {
	buildclient.Result
	out string
}

func buildPlain(t testing.TB, cfg buildclient.Config) (plainResult, error) {
	t.Helper()
	var out bytes.Buffer
	cfg.Out = &out
	res, err := buildclient.Build(context.Background(), cfg)
	if err != nil {
		t.Log(out.String())
	}
	return plainResult{res, out.String()}, err
}

// read returns a file of an image, from a mounted container file system.
func (h *host) read(name, file string) string {
	h.t.Helper()
	ctx := context.Background()
	img, err := h.store.Get(ctx, "default", name)
	if err != nil {
		h.t.Fatal(err)
	}
	mounts, err := h.store.Prepare(ctx, "reader", img, true)
	if err != nil {
		h.t.Fatal(err)
	}
	defer h.store.Remove(ctx, "reader")
	var body []byte
	err = mount.WithTempMount(ctx, mounts, func(root string) error {
		body, err = os.ReadFile(filepath.Join(root, file))
		return err
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return string(body)
}

func condition(st v1alpha1.ImageStatus, kind string) metav1.Condition {
	if c := meta.FindStatusCondition(st.Conditions, kind); c != nil {
		return *c
	}
	return metav1.Condition{}
}

// TestBuild: a RUN step on a busybox base, a syntax line that cannot be
// fetched, and what the Image's status and Events say.
func TestBuild(t *testing.T) {
	h := newHost(t)
	h.base()
	h.image("shop", nil)
	h.api.conflicts = 2
	dir := folder(t, map[string]string{
		"Dockerfile": "# syntax=registry.invalid/frontend:1\nFROM busybox\nWORKDIR /app\nCOPY a.txt .\nRUN cat a.txt > b.txt && echo ran >> b.txt\nCMD [\"cat\", \"b.txt\"]\n",
		"a.txt":      "hello ",
	})
	res, out, err := h.build(context.Background(), "shop", dir)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if got := h.read("shop", "app/b.txt"); got != "hello ran\n" {
		t.Errorf("file in image: %q", got)
	}
	st := h.api.status("shop")
	if st.Digest != res.Digest.String() || st.NodeName != "host1" || st.BuiltAt == nil || st.ObservedGeneration != 1 || st.Size == 0 {
		t.Errorf("status: %+v", st)
	}
	if b, r := condition(st, v1alpha1.ImageBuilt), condition(st, v1alpha1.ImageBuilding); b.Status != metav1.ConditionTrue || r.Status != metav1.ConditionFalse {
		t.Errorf("conditions: %+v", st.Conditions)
	}
	ev := h.events.list()
	if len(ev) != 2 || !strings.HasPrefix(ev[0], "Normal BuildStarted") || !strings.HasPrefix(ev[1], "Normal BuildSucceeded") {
		t.Errorf("events: %q", ev)
	}
	if left := list(filepath.Join(h.root, "build", "running")); len(left) != 0 {
		t.Errorf("journal after a build: %v", left)
	}
}

// TestBuildFromScratch needs no network, no base image and no runtime.
func TestBuildFromScratch(t *testing.T) {
	h := newHost(t)
	bin, err := os.ReadFile(needBusybox(t))
	if err != nil {
		t.Fatal(err)
	}
	h.image("tiny", nil)
	dir := folder(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY busybox /bin/busybox\nENTRYPOINT [\"/bin/busybox\"]\n", "busybox": string(bin)})
	if _, out, err := h.build(context.Background(), "tiny", dir); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if got := h.read("tiny", "bin/busybox"); got != string(bin) {
		t.Error("the binary in the image differs")
	}
}

// TestFailingStep: the step, its exit code and its output reach the terminal,
// the status and the Events; the last good digest stays.
func TestFailingStep(t *testing.T) {
	h := newHost(t)
	h.base()
	h.image("fail", nil)
	dir := folder(t, map[string]string{"Dockerfile": "FROM busybox\nRUN echo fine\n"})
	good, out, err := h.build(context.Background(), "fail", dir)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	before := h.settled()
	write(t, filepath.Join(dir, "Dockerfile"), "FROM busybox\nRUN echo fine\nRUN seq 1 40; echo cannot find the thing; exit 3\n")
	_, out, err = h.build(context.Background(), "fail", dir)
	var failure *buildclient.Failure
	if !errors.As(err, &failure) {
		t.Fatalf("error %v, want a Failure\n%s", err, out)
	}
	st := h.api.status("fail")
	b := condition(st, v1alpha1.ImageBuilt)
	for _, text := range []string{err.Error(), b.Message} {
		for _, want := range []string{"Dockerfile:3", "exit code: 3", "cannot find the thing", "\n40\n"} {
			if !strings.Contains(text, want) {
				t.Errorf("%q is missing in:\n%s", want, text)
			}
		}
		if strings.Contains(text, "\n10\n") {
			t.Errorf("more than the end of the output:\n%s", text)
		}
	}
	if !strings.Contains(out, "cannot find the thing") {
		t.Errorf("progress lacks the output:\n%s", out)
	}
	if b.Status != metav1.ConditionFalse || b.Reason != v1alpha1.ReasonBuildFailed || st.Digest != good.Digest.String() {
		t.Errorf("status: %+v", st)
	}
	if img, err := h.store.Get(context.Background(), "default", "fail"); err != nil || img.Target != good.Digest {
		t.Errorf("name means %v, %v; want %s", img.Target, err, good.Digest)
	}
	ev := h.events.list()
	if last := ev[len(ev)-1]; !strings.HasPrefix(last, "Warning BuildFailed") {
		t.Errorf("last event: %q", last)
	}
	if after := h.back(before); !after.within(before) {
		t.Errorf("a failed build left something:\nbefore %+v\nafter  %+v", before, after)
	}
}

// TestMistakes: errors name file and line, or what is missing.
func TestMistakes(t *testing.T) {
	h := newHost(t)
	h.base()
	h.image("bad", nil)
	tests := []struct {
		name  string
		files map[string]string
		want  []string
	}{
		{"syntax error", map[string]string{"Dockerfile": "FROM busybox\nRUNN x\n"}, []string{"Dockerfile:2", "unknown instruction", "RUNN"}},
		{"no Dockerfile", map[string]string{"x": ""}, []string{"there is no Dockerfile", "spec.dockerfile"}},
		{"missing file", map[string]string{"Dockerfile": "FROM busybox\nCOPY none.txt /\n"}, []string{"Dockerfile:2", "none.txt", "not found"}},
		{"empty Dockerfile", map[string]string{"Dockerfile": "\n"}, []string{"file with no instructions"}},
		{"unknown stage", map[string]string{"Dockerfile": "FROM busybox\nCOPY --from=localhost:1/nobody:v1 a b\n"}, []string{"Dockerfile:2", "localhost:1/nobody:v1"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			_, _, err := h.build(ctx, "bad", folder(t, tt.files))
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q is missing in: %v", want, err)
				}
			}
		})
	}
	t.Run("no folder", func(t *testing.T) {
		_, _, err := h.build(context.Background(), "bad", "/nonexistent/folder")
		if err == nil || !strings.Contains(err.Error(), "does not exist") {
			t.Errorf("error: %v", err)
		}
	})
	t.Run("no Image object", func(t *testing.T) {
		_, _, err := h.build(context.Background(), "nobody", folder(t, map[string]string{"Dockerfile": "FROM scratch"}))
		if err == nil || !strings.Contains(err.Error(), `images.lighter.dev "nobody" not found`) {
			t.Errorf("error: %v", err)
		}
	})
}

// TestPruneDuringBuild: what a build needs stays, though nothing else does: its base
// image and what it has made so far.
func TestPruneDuringBuild(t *testing.T) {
	h := newHost(t)
	h.base()
	h.image("slow", nil)
	// The second stage takes the base up when the first one has ended.
	dir := folder(t, map[string]string{"Dockerfile": "FROM busybox AS first\nRUN echo made > /made\nRUN echo now; sleep 2918; true\n" +
		"FROM busybox\nCOPY --from=first /made /\nRUN cat /made\n"})
	sig := &signalWriter{want: "now", seen: make(chan struct{})}
	ended := make(chan error, 1)
	go func() {
		_, err := buildclient.Build(context.Background(), h.client("slow", dir, sig))
		ended <- err
	}()
	<-sig.seen
	if _, err := h.store.PruneImages(context.Background(), true, 0); err != nil {
		t.Error(err)
	}
	h.wakeSleeper("2918")
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if got := h.read("slow", "made"); got != "made\n" {
		t.Errorf("the file of the first stage: %q", got)
	}
}

// TestCancelledBuild: the client goes away in the middle of a RUN step.
func TestCancelledBuild(t *testing.T) {
	h := newHost(t)
	h.base()
	h.image("slow", nil)
	dir := folder(t, map[string]string{"Dockerfile": "FROM busybox\nRUN echo fine\n"})
	good, out, err := h.build(context.Background(), "slow", dir)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	before := h.settled()
	write(t, filepath.Join(dir, "Dockerfile"), "FROM busybox\nRUN echo fine\nRUN echo now; sleep 2917\n")
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	sig := &signalWriter{want: "now", seen: make(chan struct{})}
	ended := make(chan error, 1)
	go func() {
		_, err := buildclient.Build(ctx, h.client("slow", dir, sig))
		ended <- err
	}()
	<-sig.seen
	if c := condition(h.api.status("slow"), v1alpha1.ImageBuilding); c.Status != metav1.ConditionTrue || c.Reason != v1alpha1.ReasonBuildStarted {
		t.Errorf("while it builds: %+v", c)
	}
	if n := h.processes(); n == 0 {
		t.Error("the test does not find the step's processes")
	}
	cancel()
	eventually(t, "the step's processes end", func() bool { return !h.sleeping() && h.processes() == 0 })
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("client's error: %v", err)
	}
	eventually(t, "status says cancelled", func() bool {
		st := h.api.status("slow")
		return condition(st, v1alpha1.ImageBuilt).Reason == v1alpha1.ReasonBuildCancelled &&
			condition(st, v1alpha1.ImageBuilding).Status == metav1.ConditionFalse && st.Digest == good.Digest.String()
	})
	if after := h.back(before); !after.within(before) {
		t.Errorf("a cancelled build left something:\nbefore %+v\nafter  %+v", before, after)
	}
	if h.sleeping() {
		t.Error("the step still runs")
	}
}

// sleeping: a process of a build step is alive.
func (h *host) sleeping() bool { return h.sleeper("2917") != 0 }

// wakeSleeper ends a "sleep" of that many seconds in a step of this host.
func (h *host) wakeSleeper(seconds string) {
	h.t.Helper()
	eventually(h.t, "the step sleeps", func() bool {
		pid := h.sleeper(seconds)
		return pid != 0 && unix.Kill(pid, unix.SIGKILL) == nil
	})
}

// sleeper is the process of a "sleep" of that many seconds in a step of this host,
// 0 if there is none. Other tests on this machine may have such steps, too.
func (h *host) sleeper(seconds string) int {
	h.t.Helper()
	found, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		h.t.Fatal(err)
	}
	for _, path := range found {
		line, _ := os.ReadFile(path) // it may have ended
		mounts, _ := os.ReadFile(filepath.Join(filepath.Dir(path), "mountinfo"))
		if string(line) != "sleep\x00"+seconds+"\x00" || !strings.Contains(string(mounts), h.root) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path))); err == nil {
			return pid
		}
	}
	return 0
}

// signalWriter closes seen when want was written.
type signalWriter struct {
	mu   sync.Mutex
	buf  bytes.Buffer
	want string
	seen chan struct{}
	done bool
}

func (w *signalWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.buf.Write(p)
	if !w.done && strings.Contains(w.buf.String(), " "+w.want+"\n") {
		w.done = true
		close(w.seen)
	}
	return len(p), nil
}

// TestSerialBuilds: two builds of one Image run one after the other, builds of
// two Images do not wait for each other.
func TestSerialBuilds(t *testing.T) {
	h := newHost(t)
	h.base()
	h.image("one", nil)
	h.image("two", nil)
	dir := folder(t, map[string]string{"Dockerfile": "FROM busybox\nRUN echo start; sleep 2919; echo end\n"})
	other := folder(t, map[string]string{"Dockerfile": "FROM busybox\nRUN echo other\n"})
	sig := &signalWriter{want: "start", seen: make(chan struct{})}
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := buildclient.Build(context.Background(), h.client("one", dir, sig)); err != nil {
			t.Error(err)
		}
	})
	<-sig.seen
	var res buildclient.Result
	second := make(chan struct{})
	wg.Go(func() {
		defer close(second)
		var out string
		var err error
		if res, out, err = h.build(context.Background(), "one", other); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	})
	if _, out, err := h.build(context.Background(), "two", other); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if condition(h.api.status("one"), v1alpha1.ImageBuilding).Status != metav1.ConditionTrue {
		t.Error("the build of another Image waited")
	}
	select {
	case <-second:
		t.Error("the second build of the same Image did not wait")
	default:
	}
	h.wakeSleeper("2919")
	wg.Wait()
	if img, err := h.store.Get(context.Background(), "default", "one"); err != nil || img.Target != res.Digest {
		t.Errorf("the second build does not count: %v %v, want %s", img.Target, err, res.Digest)
	}
}

// TestRestartSettlesBuilds: an agent that was killed in mid-build reports it as
// cancelled when it starts again, one that could not reach the API reports what
// it built.
func TestRestartSettlesBuilds(t *testing.T) {
	h := newHost(t)
	h.image("cut", nil)
	h.image("late", nil)
	get := func(name string) *v1alpha1.Image {
		img, err := h.api.Get(context.Background(), "default", name)
		if err != nil {
			t.Fatal(err)
		}
		return img
	}
	if _, err := h.builder.begin(context.Background(), get("cut"), building); err != nil {
		t.Fatal(err)
	}
	rep, err := h.builder.begin(context.Background(), get("late"), building)
	if err != nil {
		t.Fatal(err)
	}
	rep.entry.Outcome = &outcome{Reason: v1alpha1.ReasonBuildSucceeded, Result: result{Digest: "sha256:x", Size: 1}, At: metav1.Now()}
	if err := h.builder.journal.put(rep.entry); err != nil {
		t.Fatal(err)
	}
	step := filepath.Join(executorRoot(filepath.Join(h.root, "build")), "leftover", "rootfs")
	if err := os.MkdirAll(step, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := mount.All([]mount.Mount{{Type: "tmpfs", Source: "tmpfs"}}, step); err != nil {
		t.Fatal(err)
	}
	h.stop()
	h.start()
	eventually(t, "builds settled", func() bool {
		return condition(h.api.status("cut"), v1alpha1.ImageBuilt).Reason == v1alpha1.ReasonBuildCancelled &&
			h.api.status("late").Digest == "sha256:x"
	})
	if _, err := os.Stat(filepath.Dir(step)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("leftover of a step: %v", err)
	}
	eventually(t, "journal is empty", func() bool { return len(list(filepath.Join(h.root, "build", "running"))) == 0 })
}

// TestKeepsOldVersions: the digest that a container runs stays when newer
// builds come, as do the last two; what is older goes.
func TestKeepsOldVersions(t *testing.T) {
	h := newHost(t)
	h.image("ver", nil)
	ctx := context.Background()
	dir := folder(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY v /v\n"})
	var digests []string
	for _, v := range []string{"1", "2", "3", "4", "5"} {
		write(t, filepath.Join(dir, "v"), v)
		res, out, err := h.build(ctx, "ver", dir)
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		digests = append(digests, res.Digest.String())
		if v == "1" {
			img, err := h.store.Get(ctx, "default", "ver")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := h.store.Prepare(ctx, "runs-first", img, false); err != nil {
				t.Fatal(err)
			}
		}
	}
	want := map[int]bool{0: true, 3: true, 4: true}
	for i, d := range digests {
		_, err := h.store.Get(ctx, "default", "ver@"+d)
		if (err == nil) != want[i] {
			t.Errorf("version %d: error %v, want present %v", i+1, err, want[i])
		}
	}
	if err := h.store.Remove(ctx, "runs-first"); err != nil {
		t.Fatal(err)
	}
}

// declared is a Builds with fixed answers about the namespace default.
type declared map[string]string

func (d declared) Lookup(_ context.Context, namespace, ref string) (digest.Digest, bool) {
	v, ok := d[ref]
	return digest.Digest(v), ok && namespace == "default"
}

// TestBaseOfCluster: FROM an image that the cluster declares but has not built
// fails at once and says so, without asking a registry.
func TestBaseOfCluster(t *testing.T) {
	needRoot(t)
	h := &host{t: t, root: t.TempDir(), api: newFakeAPI(), events: &events{}, builds: declared{"docker.io/library/base:latest": ""}}
	h.start()
	t.Cleanup(h.stop)
	h.image("child", nil)
	_, _, err := h.build(context.Background(), "child", folder(t, map[string]string{"Dockerfile": "FROM base\n"}))
	if err == nil || !strings.Contains(err.Error(), "ImageNotBuilt") || !strings.Contains(err.Error(), "Dockerfile:1") {
		t.Errorf("error: %v", err)
	}
}
