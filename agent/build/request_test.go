package build

import (
	"errors"
	"maps"
	"strings"
	"testing"
	"unicode/utf8"

	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/solver/pb"
	"google.golang.org/grpc/metadata"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"lighter.dev/lighter/api/v1alpha1"
)

// TestSolveRequest: what a client asks for beyond its Image is not done.
func TestSolveRequest(t *testing.T) {
	img := &v1alpha1.Image{ObjectMeta: metav1.ObjectMeta{Namespace: "team-a", Name: "shop"}}
	img.Spec.Target, img.Spec.Args = "final", map[string]string{"A": "1", "BUILDKIT_CACHE_MOUNT_NS": "team-b"}
	names, err := buildNames(img)
	if err != nil {
		t.Fatal(err)
	}
	got := solveRequest(img, names, &controlapi.SolveRequest{
		Ref: "r", Session: "s", Frontend: "gateway.v0", EnableSessionExporter: true,
		Entitlements:  []string{"network.host", "security.insecure"},
		FrontendAttrs: map[string]string{"source": "evil", "filename": "other", "no-cache": "", "build-arg:A": "2", namespaceAttr: "team-b"},
		Exporters:     []*controlapi.Exporter{{Type: "image", Attrs: map[string]string{"name": "evil", "push": "true"}}},
		Cache:         &controlapi.CacheOptions{Exports: []*controlapi.CacheOptionsEntry{{Type: "registry"}}},
	})
	want := map[string]string{"filename": "Dockerfile", "target": "final", "build-arg:A": "1", "image-resolve-mode": "local", "cmdline": "lighter", "no-cache": "", namespaceAttr: "team-a", cacheNamespaceAttr: "team-a"}
	if !maps.Equal(got.FrontendAttrs, want) {
		t.Errorf("attributes %v, want %v", got.FrontendAttrs, want)
	}
	if got.Ref != "r" || got.Session != "s" || got.Frontend != frontendName || len(got.Entitlements) != 0 || got.EnableSessionExporter || len(got.Cache.Exports) != 0 {
		t.Errorf("request: %+v", got)
	}
	if len(got.Exporters) != 1 || got.Exporters[0].Attrs["name"] != "built/team-a/docker.io/library/shop:latest" || got.Exporters[0].Attrs["push"] != "" {
		t.Errorf("exporters: %+v", got.Exporters)
	}
}

func TestFailureMessage(t *testing.T) {
	src := &errdefs.Source{
		Info:   &pb.SourceInfo{Filename: "Dockerfile", Data: []byte("FROM x\n  RUN make\n")},
		Ranges: []*pb.Range{{Start: &pb.Position{Line: 2}, End: &pb.Position{Line: 2}}},
	}
	err := errdefs.WithSource(errdefs.WrapVertex(errors.New("exit code: 2"), "sha256:step"), src)
	tail := newOutputTail(t.Context())
	if got, want := failureMessage(err, tail), "Dockerfile:2: RUN make: exit code: 2"; got != want {
		t.Errorf("without output: %q, want %q", got, want)
	}
	for range 3000 {
		tail.add(&controlapi.StatusResponse{Logs: []*controlapi.VertexLog{{Vertex: "sha256:step", Msg: []byte("line\n")}, {Vertex: "sha256:other", Msg: []byte("noise\n")}}})
	}
	got := failureMessage(err, tail)
	if n := strings.Count(got, "line\n") + 1; n != tailLines || strings.Contains(got, "noise") || len(tail.steps["sha256:step"]) > tailBytes {
		t.Errorf("%d lines: %q", n, got)
	}
	if got := failureMessage(errors.New("failed to solve: broken"), tail); got != "broken" {
		t.Errorf("plain error: %q", got)
	}
}

func TestCut(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"short", "short"},
		{strings.Repeat("a", 20) + "end", "…\naaaaaaend"},
		{"bad \xff byte", "bad \uFFFD byte"},
	} {
		if got := cut(tt.in, 13); got != tt.want {
			t.Errorf("cut(%q) = %q, want %q", tt.in, got, tt.want)
		}
	}
	if got := cut(strings.Repeat("é", 100), 50); !utf8.ValidString(got) {
		t.Errorf("cut through a letter: %q", got)
	}
}

// TestApplyOutcome: a failure keeps the digest that serves.
func TestApplyOutcome(t *testing.T) {
	img := &v1alpha1.Image{}
	apply := func(generation int64, o outcome) {
		o.At = metav1.Now()
		applyOutcome(img, entry{Generation: generation, Outcome: &o}, "host1")
	}
	apply(1, outcome{Reason: v1alpha1.ReasonBuildSucceeded, Result: result{Digest: "sha256:1", Size: 5}})
	apply(2, outcome{Reason: v1alpha1.ReasonBuildFailed, Message: "why"})
	st := img.Status
	if st.Digest != "sha256:1" || st.ObservedGeneration != 1 || st.NodeName != "host1" || st.Size != 5 {
		t.Errorf("status: %+v", st)
	}
	if c := meta.FindStatusCondition(st.Conditions, v1alpha1.ImageBuilt); c.Status != metav1.ConditionFalse || c.ObservedGeneration != 2 || c.Message != "why" {
		t.Errorf("Built: %+v", c)
	}
	if meta.IsStatusConditionTrue(st.Conditions, v1alpha1.ImageBuilding) {
		t.Error("still building")
	}
}

// TestSharedKeyIsOfTheNamespace: the header as BuildKit's client sends it, plain
// or encoded, and one that a client sends twice or not at all.
func TestSharedKeyIsOfTheNamespace(t *testing.T) {
	for _, sent := range []metadata.MD{
		metadata.Pairs(sharedKeyHeader, "key"), metadata.Pairs("X-Docker-Expose-Session-Sharedkey", "key", sharedKeyHeader, "team-a/key"),
	} {
		ctx := scopeSharedKey(metadata.NewIncomingContext(t.Context(), sent), "team-b")
		md, _ := metadata.FromIncomingContext(ctx)
		if got := md.Get(sharedKeyHeader); len(got) != 1 || got[0] != "team-b/key" {
			t.Errorf("%v became %q", sent, got)
		}
	}
	md, _ := metadata.FromIncomingContext(scopeSharedKey(t.Context(), "team-b"))
	if got := md.Get(sharedKeyHeader); len(got) != 1 || got[0] != "team-b/" {
		t.Errorf("without a key: %q", got)
	}
}
