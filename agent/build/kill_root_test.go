package build

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/client-go/rest"

	"lighter.dev/lighter/agent/build/buildclient"
	"lighter.dev/lighter/agent/image"
	"lighter.dev/lighter/api/v1alpha1"
)

// childRoot, in the environment, makes this test program the agent to be
// killed: a builder on that folder that prints its address.
const childRoot = "LIGHTER_TEST_BUILDER"

// runChild is the agent to be killed. Its API is a file that its parent reads.
func runChild(root string) {
	api := newFakeAPI()
	img := &v1alpha1.Image{}
	img.Name, img.Spec.Source.Path = "doomed", "."
	api.put(img)
	h := &host{root: root, api: api, events: &events{}}
	if err := errors.Join(image.UseTemporary(h.temporary()), h.open()); err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	fmt.Println("url", h.server.URL)
	if archive := os.Getenv(childWork); archive != "" {
		importForEver(h.builder, archive)
	}
	if container := os.Getenv(childCommits); container != "" {
		commitForEver(h.builder, container)
	}
	select {}
}

// TestKilledAgent: SIGKILL in the middle of a RUN step. The next agent ends the
// step, cleans up, says so in the status, and the repeated build succeeds.
func TestKilledAgent(t *testing.T) {
	h := newHost(t)
	h.base()
	h.image("doomed", nil)
	dir := folder(t, map[string]string{"Dockerfile": "FROM busybox\nRUN echo fine\nRUN echo now; sleep 2917\n"})
	// The first time leaves the cache of the step that was fine; the second
	// must leave nothing more. This process builds only at the end: BuildKit
	// has caches per process that do not survive a builder that is opened again.
	var left [2]tally
	for i := range left {
		h.stop()
		buildAndKill(t, h.root, dir)
		adoptJournal(t, h)
		h.start()
		eventually(t, "the build is reported as cancelled", func() bool {
			return condition(h.api.status("doomed"), v1alpha1.ImageBuilt).Reason == v1alpha1.ReasonBuildCancelled
		})
		if h.sleeping() {
			t.Error("the step outlived its agent and the next one")
		}
		if left[i] = h.settled(); i > 0 {
			left[i] = h.back(left[0])
		}
	}
	if !left[1].within(left[0]) {
		t.Errorf("a killed agent left something:\nfirst  %+v\nsecond %+v", left[0], left[1])
	}
	if n := left[1]; n.Mounts+n.Steps+n.Ingests+n.Processes+n.Containers != 0 {
		t.Errorf("mounts, steps, processes or unfinished blobs are left: %+v", n)
	}
	write(t, filepath.Join(dir, "Dockerfile"), "FROM busybox\nRUN echo fine\nRUN echo again\n")
	if _, out, err := h.build(context.Background(), "doomed", dir); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// buildAndKill runs an agent in a process of its own and kills it in mid-step.
func buildAndKill(t *testing.T, root, dir string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childRoot+"="+root)
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	killed := false
	kill := func() {
		if !killed {
			killed = true
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	}
	defer kill()
	line, err := bufio.NewReader(pipe).ReadString('\n')
	base, ok := strings.CutPrefix(strings.TrimSpace(line), "url ")
	if err != nil || !ok {
		t.Fatalf("child: %q, %v", line, err)
	}
	sig := &signalWriter{want: "now", seen: make(chan struct{})}
	ended := make(chan error, 1)
	go func() {
		_, err := buildclient.Build(context.Background(), buildclient.Config{
			Namespace: "default", Name: "doomed", ContextDir: dir, Progress: buildclient.Plain, Out: sig,
			Dial: func(ctx context.Context) (net.Conn, error) {
				u, err := url.Parse(base + "/build/default/doomed")
				if err != nil {
					return nil, err
				}
				return buildclient.Upgrade(ctx, &rest.Config{Host: base}, u)
			},
		})
		ended <- err
	}()
	select {
	case <-sig.seen:
	case err := <-ended:
		t.Fatalf("the build ended early: %v", err)
	}
	kill()
	if err := <-ended; err == nil {
		t.Error("the client of a killed agent saw no error")
	}
}

// adoptJournal makes the child's Image the one of this process's API.
func adoptJournal(t *testing.T, h *host) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(h.root, "build", "running", "*.json"))
	if err != nil || len(files) != 1 {
		t.Fatalf("journal of the killed agent: %v, %v", files, err)
	}
	raw, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	var e entry
	if err := json.Unmarshal(raw, &e); err != nil {
		t.Fatal(err)
	}
	h.api.mu.Lock()
	h.api.objects[e.key()].UID = e.UID
	h.api.mu.Unlock()
}

// TestBaseFromPeer: FROM finds an image that another host has built.
func TestBaseFromPeer(t *testing.T) {
	one := newHost(t)
	one.image("base", nil)
	res, out, err := one.build(context.Background(), "base", folder(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY hello /hello\n", "hello": "from host one"}))
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	peer := serveContent(t, one.store)
	two := &host{t: t, root: t.TempDir(), api: newFakeAPI(), events: &events{}, builds: declared{"docker.io/library/base:latest": res.Digest.String()}, peers: holders{peer}}
	two.start()
	t.Cleanup(two.stop)
	two.image("child", nil)
	if _, out, err := two.build(context.Background(), "child", folder(t, map[string]string{"Dockerfile": "FROM base\nCOPY more /more\n", "more": "x"})); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if got := two.read("child", "hello"); got != "from host one" {
		t.Errorf("file of the base: %q", got)
	}
	if got, err := two.store.Get(context.Background(), "default", "base"); err != nil || got.Target != res.Digest {
		t.Errorf("base on host two: %v, %v", got.Target, err)
	}
}
