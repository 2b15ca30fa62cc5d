package image

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// childRoot and childPulls, in the environment, make this test program the agent to be
// killed: a Store in that folder that pulls that image.
const (
	childRoot  = "LIGHTER_TEST_STORE"
	childPulls = "LIGHTER_TEST_STORE_PULLS"
)

func pullAsChild(root, ref string) {
	s, err := Open(context.Background(), Config{Root: root, Log: slog.New(slog.DiscardHandler)})
	if err == nil {
		_, err = s.Ensure(context.Background(), Request{Ref: ref})
	}
	fmt.Println("the pull ended:", err)
	os.Exit(1)
}

// TestKilledPull: SIGKILL in mid-pull, when one layer is unpacked and another is half
// there. After the next start nothing is left, and the repeated pull succeeds.
func TestKilledPull(t *testing.T) {
	fx := newFixture(t, map[string]string{"a": "small"}, map[string]string{"b": random(1 << 20)})
	half, hang := make(chan struct{}), make(chan struct{})
	var once sync.Once
	reg := &fakeRegistry{image: fx, fault: func(w http.ResponseWriter, r *http.Request, body []byte) bool {
		if r.Method != http.MethodGet || !strings.HasSuffix(r.URL.Path, fx.layers[1].Digest.String()) {
			return false
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		_, _ = w.Write(body[:len(body)/2])
		w.(http.Flusher).Flush()
		once.Do(func() { close(half) })
		<-hang
		return true
	}}
	srv := httptest.NewServer(reg)
	defer srv.Close()
	ref := srv.Listener.Addr().String() + "/x:v1"
	s := open(t, nil)
	empty, root := count(t, s), s.cfg.Root
	must(t, s.Close())

	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), childRoot+"="+root, childPulls+"="+ref)
	child.Stdout = logWriter{t}
	must(t, child.Start())
	<-half
	eventually(t, "the first layer is unpacked and the second has begun", func() bool {
		return entries(t, root+"/snapshots-"+Overlayfs+"/snapshots") > 0 && entries(t, root+"/content/ingest") > 0
	})
	must(t, child.Process.Kill())
	_ = child.Wait()
	close(hang)

	again := open(t, func(c *Config) { c.Root = root })
	if n := count(t, again); n != empty {
		t.Errorf("left over: %+v, want %+v", n, empty)
	}
	reg.mu.Lock()
	reg.fault = nil
	reg.mu.Unlock()
	if img, err := again.Ensure(context.Background(), Request{Ref: ref}); err != nil || img.Target != fx.manifest.Digest {
		t.Errorf("the repeated pull: %v, %v", img.Target, err)
	}
}

// eventually polls until cond holds.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !cond(); {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
