package build

import (
	"bytes"
	"errors"
	"maps"
	"strings"
	"testing"
	"unicode/utf8"

	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/solver/pb"
	spb "github.com/moby/buildkit/sourcepolicy/pb"
	"google.golang.org/grpc/metadata"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"lighter.dev/lighter/api/v1alpha1"
)

// TestSolveRequest: the Image decides what is built and what it is called, the
// client how.
func TestSolveRequest(t *testing.T) {
	img := &v1alpha1.Image{ObjectMeta: metav1.ObjectMeta{Namespace: "team-a", Name: "shop"}}
	img.Spec.Source.Path = "."
	img.Spec.Target, img.Spec.Args = "final", map[string]string{"A": "1", "BUILDKIT_CACHE_MOUNT_NS": "team-b"}
	names, err := buildNames(img)
	if err != nil {
		t.Fatal(err)
	}
	got, err := solveRequest(img, names, &controlapi.SolveRequest{
		Ref: "r", Session: "s", Frontend: frontendName, EnableSessionExporter: true,
		FrontendAttrs: map[string]string{
			"filename": "other", "no-cache": "", "build-arg:A": "1", "target": "final", "platform": "linux/amd64", "label:team": "a",
			resolveModeAttr: "pull", "attest:provenance": "mode=min", "vcs:source": "x", "cmdline": "evil", "source": "evil",
			dockerfileKeyAttr: "dockerfile",
		},
		Exporters: []*controlapi.Exporter{{Type: "tar"}, {Type: "docker", Attrs: map[string]string{"name": "x"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"filename": "other", "target": "final", "build-arg:A": "1", resolveModeAttr: "local", pullAttr: "", "cmdline": "lighter", "no-cache": "",
		"platform": "linux/amd64", "label:team": "a", namespaceAttr: "team-a", cacheNamespaceAttr: "team-a",
	}
	if !maps.Equal(got.FrontendAttrs, want) {
		t.Errorf("attributes %v, want %v", got.FrontendAttrs, want)
	}
	if got.Ref != "r" || got.Session != "s" || got.Frontend != frontendName || len(got.Entitlements) != 0 || got.EnableSessionExporter || len(got.Cache.Exports) != 0 {
		t.Errorf("request: %+v", got)
	}
	if len(got.Exporters) != 3 || got.Exporters[0].Type != "tar" || got.Exporters[1].Attrs["name"] != "x" {
		t.Fatalf("exporters: %+v", got.Exporters)
	}
	if last := got.Exporters[2]; last.Type != "image" || last.Attrs["name"] != "built/team-a/docker.io/library/shop:latest" || last.Attrs["push"] != "" {
		t.Errorf("the image's own exporter: %+v", last)
	}
}

// TestInlineRequest: the Dockerfile of the object is built, whatever was sent.
func TestInlineRequest(t *testing.T) {
	img := &v1alpha1.Image{ObjectMeta: metav1.ObjectMeta{Namespace: "team-a", Name: "shop"}}
	img.Spec.Source.Inline = "FROM scratch\nLABEL a=b\n"
	got, err := solveRequest(img, []string{"shop"}, &controlapi.SolveRequest{FrontendAttrs: map[string]string{"filename": "other"}})
	if err != nil {
		t.Fatal(err)
	}
	if got.FrontendAttrs["filename"] != "Dockerfile" {
		t.Errorf("reads %s", got.FrontendAttrs["filename"])
	}
	for _, name := range []string{"context", "dockerfile"} {
		if definition := got.FrontendInputs[name]; definition == nil || !bytes.Contains(bytes.Join(definition.Def, nil), []byte("LABEL a=b")) {
			t.Errorf("%s is not the Dockerfile: %v", name, definition)
		}
	}
}

// TestRefusedRequests: what a client cannot have, and that the answer names it.
func TestRefusedRequests(t *testing.T) {
	img := &v1alpha1.Image{ObjectMeta: metav1.ObjectMeta{Namespace: "team-a", Name: "shop"}}
	img.Spec.Source.Path, img.Spec.Args = ".", map[string]string{"A": "1"}
	names, err := buildNames(img)
	if err != nil {
		t.Fatal(err)
	}
	attr := func(key, value string) *controlapi.SolveRequest {
		return &controlapi.SolveRequest{FrontendAttrs: map[string]string{key: value}}
	}
	output := func(kind string, attrs map[string]string) *controlapi.SolveRequest {
		return &controlapi.SolveRequest{Exporters: []*controlapi.Exporter{{Type: kind, Attrs: attrs}}}
	}
	cache := func(c *controlapi.CacheOptions) *controlapi.SolveRequest { return &controlapi.SolveRequest{Cache: c} }
	entry := []*controlapi.CacheOptionsEntry{{Type: "registry"}}
	for what, asked := range map[string]*controlapi.SolveRequest{
		"gateway.v0":              {Frontend: "gateway.v0"},
		"build graph":             {Definition: &pb.Definition{Def: [][]byte{{1}}}},
		"(LLB)":                   {FrontendInputs: map[string]*pb.Definition{"x": {}}},
		"network.host":            {Entitlements: []string{"network.host"}},
		"security.insecure":       {Entitlements: []string{"security.insecure"}},
		"source policy":           {SourcePolicy: &spb.Policy{}},
		"proxy network":           {ProxyNetwork: true},
		"lighter push":            output("image", map[string]string{"name": "evil", "push": "true"}),
		"spec.tags":               output("image", map[string]string{"name": "evil"}),
		"moby":                    output("moby", nil),
		"type image":              {ExporterDeprecated: "image", ExporterAttrsDeprecated: map[string]string{"push": "true"}},
		"caches to import":        cache(&controlapi.CacheOptions{Imports: entry}),
		"or export":               cache(&controlapi.CacheOptions{Exports: entry}),
		"keeps one of its own":    cache(&controlapi.CacheOptions{ExportRefDeprecated: "x"}),
		namespaceAttr:             attr(namespaceAttr, "team-b"),
		pullAttr:                  attr(pullAttr, ""),
		"BUILDKIT_CACHE_MOUNT_NS": attr(cacheNamespaceAttr, "team-b"),
		"argument A":              attr("build-arg:A", "2"),
		"argument B":              attr("build-arg:B", "2"),
		`target "other"`:          attr("target", "other"),
		"option context":          attr("context", "https://example.test/x.git"),
		"option context:base":     attr("context:base", "docker-image://x"),
		"option contextkey":       attr("contextkey", "label:x"),
		"option dockerfilekey":    attr(dockerfileKeyAttr, "other"),
		"cgroup-parent":           attr("cgroup-parent", "/"),
		"force-network-mode":      attr("force-network-mode", "host"),
		"local-sessionid":         attr("local-sessionid:context", "team-b/x/1"),
		"cache-from":              attr("cache-from", "x"),
		"requestid":               attr("requestid", "frontend.lint"),
		"want local or pull":      attr(resolveModeAttr, "x"),
	} {
		if _, err := solveRequest(img, names, asked); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%q is missing in: %v", what, err)
		}
	}
}

// TestGitKeepsItsDockerfile: a client cannot bring one of its own.
func TestGitKeepsItsDockerfile(t *testing.T) {
	img := &v1alpha1.Image{ObjectMeta: metav1.ObjectMeta{Namespace: "team-a", Name: "shop"}}
	img.Spec.Source.Git = &v1alpha1.GitSource{URL: "https://example.test/shop.git"}
	_, err := solveRequest(img, []string{"shop"}, &controlapi.SolveRequest{FrontendAttrs: map[string]string{dockerfileKeyAttr: "dockerfile"}})
	if err == nil || !strings.Contains(err.Error(), dockerfileKeyAttr) {
		t.Errorf("taken: %v", err)
	}
}

func TestGitContext(t *testing.T) {
	for _, tt := range []struct {
		in   v1alpha1.GitSource
		want string
	}{
		{v1alpha1.GitSource{URL: "https://example.test/shop.git"}, "https://example.test/shop.git"},
		{v1alpha1.GitSource{URL: "https://example.test/shop", Ref: "v1"}, "https://example.test/shop.git#v1"},
		{v1alpha1.GitSource{URL: "http://example.test/shop/", Path: "app"}, "http://example.test/shop.git#:app"},
		{v1alpha1.GitSource{URL: "git://example.test/shop", Ref: "main", Path: "a/b"}, "git://example.test/shop#main:a/b"},
	} {
		img := &v1alpha1.Image{}
		img.Spec.Source.Git = &tt.in
		if got := imageAttrs(img)["context"]; got != tt.want {
			t.Errorf("%+v: %q, want %q", tt.in, got, tt.want)
		}
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

// TestSessionsAreOfTheImage: the headers as BuildKit's client sends them, and
// ones that a client sends twice or not at all.
func TestSessionsAreOfTheImage(t *testing.T) {
	for _, sent := range []metadata.MD{
		metadata.Pairs(sharedKeyHeader, "key", sessionHeader, "id"),
		metadata.Pairs("X-Docker-Expose-Session-Sharedkey", "key", sharedKeyHeader, "team-a/key", sessionHeader, "id", sessionHeader, "team-a/shop/id"),
	} {
		ctx := scopeSession(metadata.NewIncomingContext(t.Context(), sent), "team-b", "web")
		md, _ := metadata.FromIncomingContext(ctx)
		if key, id := md.Get(sharedKeyHeader), md.Get(sessionHeader); len(key) != 1 || key[0] != "team-b/key" || len(id) != 1 || id[0] != "team-b/web/id" {
			t.Errorf("%v became %q, %q", sent, key, id)
		}
	}
	md, _ := metadata.FromIncomingContext(scopeSession(t.Context(), "team-b", "web"))
	if key, id := md.Get(sharedKeyHeader), md.Get(sessionHeader); len(key) != 1 || key[0] != "team-b/" || id[0] != "" {
		t.Errorf("without headers: %q, %q", key, id)
	}
}

// TestAgain: what was cut off is repeated by whoever made it, or by the cluster.
func TestAgain(t *testing.T) {
	const byCluster, apply = "The cluster builds it again by itself.", "Apply again to build."
	for _, test := range []struct {
		source v1alpha1.ImageSource
		work   Work
		want   string
	}{
		{v1alpha1.ImageSource{Path: "."}, building, apply},
		{v1alpha1.ImageSource{Git: &v1alpha1.GitSource{URL: "ssh://git@example.com/shop"}}, building, apply}, // wants the client's key
		{v1alpha1.ImageSource{Git: &v1alpha1.GitSource{URL: "https://example.com/shop"}}, building, byCluster},
		{v1alpha1.ImageSource{Inline: "FROM scratch"}, building, byCluster},
		{v1alpha1.ImageSource{ConfigMap: &v1alpha1.ConfigMapSource{Name: "shop"}}, building, byCluster},
		{v1alpha1.ImageSource{Archive: &v1alpha1.ArchiveSource{}}, Import, "Send the archive again."},
		{v1alpha1.ImageSource{Container: &v1alpha1.ContainerSource{}}, Commit, "Commit the container again."},
	} {
		if got := newEntry(&v1alpha1.Image{Spec: v1alpha1.ImageSpec{Source: test.source}}, test.work).again(); got != test.want {
			t.Errorf("%+v: %q, want %q", test.source, got, test.want)
		}
	}
}

// TestSuperseded: a host that comes back does not spoil what another one made.
func TestSuperseded(t *testing.T) {
	const running, ended = metav1.ConditionTrue, metav1.ConditionFalse
	for _, test := range []struct {
		name            string
		status          metav1.ConditionStatus
		reason, builder string
		outcome         string
		want            bool
	}{
		{"nobody knows yet", running, v1alpha1.ReasonBuildStarted, "here", v1alpha1.ReasonBuildCancelled, false},
		{"the control plane knows", ended, v1alpha1.ReasonBuildCancelled, "", v1alpha1.ReasonBuildCancelled, false},
		{"another builds", running, v1alpha1.ReasonBuildStarted, "elsewhere", v1alpha1.ReasonBuildCancelled, true},
		{"another has built", ended, v1alpha1.ReasonBuildSucceeded, "", v1alpha1.ReasonBuildCancelled, true},
		{"it was built nevertheless", running, v1alpha1.ReasonBuildStarted, "elsewhere", v1alpha1.ReasonBuildSucceeded, false},
	} {
		img := &v1alpha1.Image{}
		setBuilding(img, 1, test.status, test.reason, buildsIt(test.builder))
		if got := superseded(img, entry{Outcome: &outcome{Reason: test.outcome}}, "here"); got != test.want {
			t.Errorf("%s: %v", test.name, got)
		}
	}
}
