package build

import (
	"context"
	"errors"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	controlapi "github.com/moby/buildkit/api/services/control"
	bkclient "github.com/moby/buildkit/client"
	gateway "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/identity"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/filesync"
	"github.com/moby/buildkit/session/grpchijack"
	"github.com/tonistiigi/fsutil"
	"k8s.io/client-go/rest"

	"lighter.dev/lighter/agent/build/buildclient"
)

// rawClient is BuildKit's client on a tunnel to an Image; it opens as many
// connections as gRPC likes.
func (h *host) rawClient(namespace, name string) *bkclient.Client {
	h.t.Helper()
	c, err := bkclient.New(context.Background(), "passthrough:///agent", bkclient.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
		u, err := url.Parse(h.server.URL + "/build/" + namespace + "/" + name)
		if err != nil {
			return nil, err
		}
		return buildclient.Upgrade(ctx, &rest.Config{Host: h.server.URL}, u)
	}))
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { _ = c.Close() })
	return c
}

func solveOptions(t *testing.T, dir string) bkclient.SolveOpt {
	t.Helper()
	folder, err := fsutil.NewFS(dir)
	if err != nil {
		t.Fatal(err)
	}
	return bkclient.SolveOpt{LocalMounts: map[string]fsutil.FS{"context": folder, "dockerfile": folder}}
}

// drain takes progress that nobody reads.
func drain() chan *bkclient.SolveStatus {
	ch := make(chan *bkclient.SolveStatus)
	go func() {
		for range ch {
		}
	}()
	return ch
}

// TestGatewayClients: buildctl and buildx build by BuildKit's gateway API. They
// get one build of the Image and nothing else of it.
func TestGatewayClients(t *testing.T) {
	h := newHost(t)
	h.image("shop", nil)
	dir := folder(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY f /f\n", "f": "x"})
	c := h.rawClient("default", "shop")
	ask := gateway.SolveRequest{Frontend: frontendName, FrontendOpt: map[string]string{"filename": "Dockerfile"}}
	build := func(f gateway.BuildFunc) error {
		_, err := c.Build(context.Background(), solveOptions(t, dir), "test", f, drain())
		return err
	}
	for range 2 { // one connection carries any number of builds
		if err := build(func(ctx context.Context, c gateway.Client) (*gateway.Result, error) { return c.Solve(ctx, ask) }); err != nil {
			t.Fatal(err)
		}
	}
	if h.api.status("shop").Digest == "" || h.read("shop", "f") != "x" {
		t.Errorf("status: %+v", h.api.status("shop"))
	}
	h.emptyBuilds(c)
	own := errors.New("the client's own")
	for want, f := range map[string]gateway.BuildFunc{
		own.Error(): func(context.Context, gateway.Client) (*gateway.Result, error) { return nil, own },
		"a second build": func(ctx context.Context, c gateway.Client) (*gateway.Result, error) {
			if res, err := c.Solve(ctx, ask); err != nil {
				return res, err
			}
			return c.Solve(ctx, ask)
		},
		"the frontend evil": func(ctx context.Context, c gateway.Client) (*gateway.Result, error) {
			return c.Solve(ctx, gateway.SolveRequest{Frontend: "evil"})
		},
		"Unimplemented": func(ctx context.Context, c gateway.Client) (*gateway.Result, error) {
			res, err := c.Solve(ctx, ask)
			if err != nil {
				return nil, err
			}
			ref, err := res.SingleRef()
			if err != nil {
				return nil, err
			}
			_, err = ref.ReadFile(ctx, gateway.ReadRequest{Filename: "f"})
			return nil, err
		},
	} {
		start := time.Now()
		if err := build(f); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
		if took := time.Since(start); took > time.Minute {
			t.Errorf("%q took %s", want, took)
		}
	}
	if h.api.status("shop").Digest == "" {
		t.Error("what was refused changed the Image")
	}
}

// emptyBuilds are how docker buildx asks what the bridge can do. There is nothing
// that they could put out.
func (h *host) emptyBuilds(c *bkclient.Client) {
	h.t.Helper()
	empty := func(context.Context, gateway.Client) (*gateway.Result, error) { return nil, nil }
	if _, err := c.Build(context.Background(), bkclient.SolveOpt{Internal: true}, "test", empty, nil); err != nil {
		h.t.Errorf("an empty build: %v", err)
	}
	output := bkclient.SolveOpt{Exports: []bkclient.ExportEntry{{Type: bkclient.ExporterLocal, OutputDir: h.t.TempDir()}}}
	if _, err := c.Build(context.Background(), output, "test", empty, nil); err == nil || !strings.Contains(err.Error(), "without a build") {
		h.t.Errorf("the output of an empty build: %v", err)
	}
}

// TestForeignSessions: another Image's client cannot use a session, with the
// folder and the secrets behind it, although it knows the session's identity.
func TestForeignSessions(t *testing.T) {
	h := newHost(t)
	h.imageIn("team-a", "victim", nil)
	h.imageIn("team-b", "victim", nil)
	victim, thief := h.rawClient("team-a", "victim"), h.rawClient("team-b", "victim")
	open, err := session.NewSession(t.Context(), "key")
	if err != nil {
		t.Fatal(err)
	}
	dirs := filesync.StaticDirSource(solveOptions(t, folder(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY f /f\n", "f": "x"})).LocalMounts)
	open.Allow(filesync.NewFSSyncProvider(dirs))
	go func() { _ = open.Run(t.Context(), grpchijack.Dialer(victim.ControlClient())) }()
	defer open.Close()
	solve := func(c *bkclient.Client) error {
		_, err := c.ControlClient().Solve(t.Context(), &controlapi.SolveRequest{
			Ref: identity.NewID(), Session: open.ID(), Frontend: frontendName, FrontendAttrs: map[string]string{"filename": "Dockerfile"},
		})
		return err
	}
	if err := solve(victim); err != nil {
		t.Errorf("its own session: %v", err)
	}
	if err := solve(h.rawClient("team-a", "victim")); err != nil {
		t.Errorf("its own session, by another connection: %v", err)
	}
	if err := solve(thief); err == nil || !strings.Contains(err.Error(), "no active session") {
		t.Errorf("another namespace's session: %v", err)
	}
}
