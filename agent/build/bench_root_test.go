package build

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"

	"lighter.dev/lighter/agent/build/buildclient"
)

const benchDockerfile = `FROM busybox
WORKDIR /app
COPY a.txt .
RUN cat a.txt > copy.txt
COPY b.txt .
RUN cat b.txt >> copy.txt
`

// benchBuild builds and fails the benchmark on an error.
func benchBuild(b *testing.B, h *host, dir string) {
	b.Helper()
	cfg := h.client("bench", dir, io.Discard)
	cfg.Progress = buildclient.Quiet
	if _, err := buildclient.Build(context.Background(), cfg); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkBuild measures whole builds of a 4-step Dockerfile, client and
// connection included. Budget: cached 60 ms, one changed file 300 ms.
func BenchmarkBuild(b *testing.B) {
	h := newHost(b)
	h.base()
	h.image("bench", nil)
	dir := folder(b, map[string]string{"Dockerfile": benchDockerfile, "a.txt": "a", "b.txt": "b"})
	for i := range 100 {
		write(b, filepath.Join(dir, "src", fmt.Sprintf("f%d.txt", i)), strings.Repeat("x", 1000))
	}
	benchBuild(b, h, dir) // the engine starts with the first build
	n := 0
	b.Run("cold", func(b *testing.B) {
		for b.Loop() {
			n++
			b.StopTimer()
			write(b, filepath.Join(dir, "a.txt"), fmt.Sprint("a", n))
			b.StartTimer()
			benchBuild(b, h, dir)
		}
	})
	b.Run("cached", func(b *testing.B) {
		for b.Loop() {
			benchBuild(b, h, dir)
		}
	})
	b.Run("onefile", func(b *testing.B) {
		for b.Loop() {
			n++
			b.StopTimer()
			write(b, filepath.Join(dir, "b.txt"), fmt.Sprint("b", n))
			b.StartTimer()
			benchBuild(b, h, dir)
		}
	})
}

// BenchmarkPrepare measures a container's file system, made and removed.
func BenchmarkPrepare(b *testing.B) {
	h := newHost(b)
	h.base()
	ctx := context.Background()
	img, err := h.store.Get(ctx, "default", "busybox")
	if err != nil {
		b.Fatal(err)
	}
	for i := 0; b.Loop(); i++ {
		id := fmt.Sprint("c", i)
		if _, err := h.store.Prepare(ctx, id, img, false); err != nil {
			b.Fatal(err)
		}
		if err := h.store.Remove(ctx, id); err != nil {
			b.Fatal(err)
		}
	}
}

// rssAnon is this process's anonymous memory, in MB.
func rssAnon(t testing.TB) float64 {
	t.Helper()
	raw, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(raw), "RssAnon:")
	var kb float64
	if _, err := fmt.Sscan(rest, &kb); err != nil {
		t.Fatal(err)
	}
	return kb / 1024
}

// BenchmarkMemory reports the anonymous memory of this process at start and
// what the parts add: the store and the builder, BuildKit, and what a first
// build leaves. Meant for -benchtime 1x.
func BenchmarkMemory(b *testing.B) {
	heap := func() float64 {
		debug.FreeOSMemory()
		return rssAnon(b)
	}
	for b.Loop() {
		start := heap()
		h := newHost(b)
		opened := heap()
		_, leave, err := h.builder.enter()
		if err != nil {
			b.Fatal(err)
		}
		leave()
		engine := heap()
		h.base()
		h.image("bench", nil)
		dir := folder(b, map[string]string{"Dockerfile": benchDockerfile, "a.txt": "a", "b.txt": "b"})
		benchBuild(b, h, dir)
		built := heap()
		b.ReportMetric(start, "MB/start")
		b.ReportMetric(opened-start, "MB/open")
		b.ReportMetric(engine-opened, "MB/engine")
		b.ReportMetric(built-engine, "MB/first-build")
		h.stop()
	}
}
