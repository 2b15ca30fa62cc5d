package image

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
)

// TestPullResumes: a pull whose registry drops the connection goes on where it was.
func TestPullResumes(t *testing.T) {
	fx := newFixture(t, map[string]string{"a": random(1 << 20)})
	layer := fx.layers[0]
	var mu sync.Mutex
	var ranges []string
	reg := &fakeRegistry{image: fx, fault: func(w http.ResponseWriter, r *http.Request, body []byte) bool {
		if r.Method != http.MethodGet || !strings.HasSuffix(r.URL.Path, layer.Digest.String()) {
			return false
		}
		mu.Lock()
		defer mu.Unlock()
		if ranges = append(ranges, r.Header.Get("Range")); len(ranges) > 1 {
			return false
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		_, _ = w.Write(body[:len(body)/2])
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}}
	srv := httptest.NewServer(reg)
	defer srv.Close()
	s := open(t, nil)
	_, err := s.Pull(context.Background(), "", srv.Listener.Addr().String()+"/x:v1", nil, nil)
	must(t, err)
	mu.Lock()
	defer mu.Unlock()
	if len(ranges) != 2 || ranges[0] != "" || ranges[1] == "" || strings.HasPrefix(ranges[1], "bytes=0-") {
		t.Errorf("the layer was asked for with the ranges %q", ranges)
	}
}

// TestPullHangs: a registry that accepts and then says nothing is given up.
func TestPullHangs(t *testing.T) {
	hang := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-hang }))
	defer srv.Close()
	defer close(hang)
	s := open(t, func(c *Config) { c.stall = 200 * time.Millisecond })
	_, err := s.Pull(context.Background(), "", srv.Listener.Addr().String()+"/x:v1", nil, nil)
	if !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("error: %v", err)
	}
}

// TestDiskFull: a pull that fills the disk says so and leaves nothing; with less to
// pull the store works on.
func TestDiskFull(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "size=6m"))
	t.Cleanup(func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	s := open(t, func(c *Config) { c.Root = dir })
	stock(t, s, newFixture(t, map[string]string{"a": "first"}))
	before := count(t, s)
	for range 2 {
		srv := httptest.NewServer(&fakeRegistry{image: newFixture(t, map[string]string{"a": random(4 << 20)}, map[string]string{"b": random(4<<20 + 1)})})
		_, err := s.Pull(context.Background(), "", srv.Listener.Addr().String()+"/x:v1", nil, nil)
		srv.Close()
		if err == nil || !strings.Contains(err.Error(), "no space left") {
			t.Fatalf("error: %v", err)
		}
		if n := count(t, s); n != before {
			t.Fatalf("left over: %+v, want %+v", n, before)
		}
	}
	img, err := s.Ensure(context.Background(), Request{Ref: stock(t, s, newFixture(t, map[string]string{"a": "small"}))})
	if err != nil || img.ChainID == "" {
		t.Errorf("a small image afterwards: %v", err)
	}
}

// TestDamagedBlobs: what the disk changed is found when it is used, dropped, and
// fetched again.
func TestDamagedBlobs(t *testing.T) {
	ctx := context.Background()
	fx := newFixture(t, map[string]string{"a": random(100_000)})
	var config ocispec.Manifest
	must(t, json.Unmarshal(fx.blobs[fx.manifest.Digest], &config))
	srv := httptest.NewServer(&fakeRegistry{image: fx})
	defer srv.Close()
	ref := srv.Listener.Addr().String() + "/x:v1"
	for _, what := range []struct {
		name string
		dgst digest.Digest
	}{{"manifest", fx.manifest.Digest}, {"configuration", config.Config.Digest}, {"layer", fx.layers[0].Digest}} {
		t.Run(what.name, func(t *testing.T) {
			s := open(t, nil)
			_, err := s.Ensure(ctx, Request{Ref: ref})
			must(t, err)
			whole := count(t, s)
			damage(t, s, what.dgst)
			if what.name == "layer" {
				// It was unpacked before; a push is what reads it again.
				_, err := s.Push(ctx, "", ref, traced(t).host+"/x:v1", nil, nil)
				if err == nil || !strings.Contains(err.Error(), "damaged on this host's disk") {
					t.Fatalf("push: %v", err)
				}
			}
			if _, err := s.Ensure(ctx, Request{Ref: ref, Policy: corev1.PullIfNotPresent}); err != nil {
				t.Fatal(err)
			}
			must(t, s.checkBlob(s.in(ctx), what.dgst))
			if n := count(t, s); n != whole {
				t.Errorf("afterwards %+v, before %+v", n, whole)
			}
		})
	}
	t.Run("save", func(t *testing.T) {
		s := open(t, nil)
		_, err := s.Ensure(ctx, Request{Ref: ref})
		must(t, err)
		damage(t, s, fx.layers[0].Digest)
		if err := s.Save(ctx, io.Discard, "", ref); err == nil || !strings.Contains(err.Error(), "damaged on this host's disk") {
			t.Errorf("save: %v", err)
		}
	})
}
