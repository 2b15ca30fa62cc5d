// Package buildclient is the side of a build that has the folder: what
// "lighter apply" and "lighter build" run. It upgrades a connection to the
// subresource images/build of the API server, which connects it to an agent,
// and then is a BuildKit client on it: the agent reads the files it wants (only
// what changed, never what .dockerignore excludes), the client shows progress.
//
//   - client.go: one build from start to end.
//   - dial.go: the upgraded connection.
//   - files.go: a context that is no folder.
//   - session.go: what the builder may ask for: secrets, SSH agents, credentials.
//   - output.go: results that come back here.
//   - check.go: mistakes that are found before a connection is made.
//   - failure.go: what a person reads when it failed.
package buildclient

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/docker/cli/cli/config/configfile"
	bkclient "github.com/moby/buildkit/client"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	"github.com/moby/buildkit/util/progress/progressui"
	"github.com/opencontainers/go-digest"
	"github.com/tonistiigi/fsutil"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
	"k8s.io/client-go/rest"
)

// Progress is how a build's progress is shown.
type Progress string

// The values of the flag --progress, as Docker has them.
const (
	// Auto is a live display on a terminal, else Plain.
	Auto Progress = "auto"
	// Plain is one line per event.
	Plain Progress = "plain"
	// Quiet shows nothing; the error has it all.
	Quiet Progress = "quiet"
)

// Config describes one build.
type Config struct {
	// Dial gives the upgraded connection. If nil, it is made from REST.
	Dial func(ctx context.Context) (net.Conn, error)
	// REST is how to reach the API server; with Namespace, Name and Node it
	// leads to the subresource images/build.
	REST            *rest.Config
	Namespace, Name string
	// Node asks for one builder; "" lets the cluster choose.
	Node string
	// ContextDir is the folder to build. "" sends none: the builder gets the
	// context by itself, from spec.source.git or inline, or it is Files.
	ContextDir string
	// Files are a context without folders that is in memory: content by name.
	Files map[string][]byte
	// DockerfileDir is where the Dockerfile is, ContextDir if empty.
	DockerfileDir string
	// Dockerfile is the path of the Dockerfile: slashes, relative to
	// DockerfileDir. It is checked before anything is sent. "" means "Dockerfile".
	Dockerfile string
	// NoCache runs every step anew, Pull asks registries for newer base images.
	NoCache, Pull bool
	// Platform is what to build for, such as "linux/arm64"; "" is the builder's own.
	Platform string
	// Labels are added to the image's configuration.
	Labels map[string]string
	// Secrets ("id=ID,src=FILE") and SSH ("default", "ID=SOCKET") are what RUN
	// --mount=type=secret and type=ssh find.
	Secrets, SSH []string
	// Logins are the credentials that the builder may ask for; nil are those in
	// Docker's configuration of whoever runs this.
	Logins *configfile.ConfigFile
	// Outputs are where the result goes besides the cluster's images; Stdout is
	// for those whose Dest is "-".
	Outputs []Output
	Stdout  io.Writer
	// Progress is Auto if empty.
	Progress Progress
	// Out is where progress goes: os.Stderr of a command, for one. The live
	// display needs an *os.File that is a terminal.
	Out io.Writer
}

// Result is what was built.
type Result struct {
	Digest digest.Digest
}

// Build sends the folder and returns when the image is built and its status
// written. A failure of the build itself is a *Failure; cancelling ctx cancels
// the build.
func Build(ctx context.Context, cfg Config) (Result, error) {
	dir, err := cfg.check()
	if err != nil {
		return Result{}, err
	}
	opt, err := cfg.options(dir)
	if err != nil {
		return Result{}, err
	}
	conn, err := Dial(ctx, cfg)
	if err != nil {
		return Result{}, err
	}
	defer conn.Close()
	var used atomic.Bool
	c, err := bkclient.New(ctx, "passthrough:///agent", bkclient.WithContextDialer(func(context.Context, string) (net.Conn, error) {
		if used.Swap(true) {
			return nil, errors.New("the connection to the builder broke")
		}
		return conn, nil
	}), bkclient.WithGRPCDialOption(grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 20 * time.Second, Timeout: 15 * time.Second})))
	if err != nil {
		return Result{}, fmt.Errorf("connect to builder: %w", err)
	}
	defer func() { _ = c.Close() }() // the result is known by then
	return cfg.solve(ctx, c, opt)
}

// options are the build in BuildKit's words.
func (cfg Config) options(dir string) (bkclient.SolveOpt, error) {
	attachables, err := cfg.attachables()
	if err != nil {
		return bkclient.SolveOpt{}, err
	}
	opt := bkclient.SolveOpt{
		Frontend:      "dockerfile.v0",
		FrontendAttrs: map[string]string{"filename": cfg.dockerfile()},
		Session:       attachables,
	}
	if dir != "" {
		if opt.LocalMounts, err = cfg.mounts(dir); err != nil {
			return opt, err
		}
		// The builder compares with what it got under this key last time.
		opt.SharedKey = cfg.Namespace + "/" + cfg.Name + ":" + dir
	}
	if len(cfg.Files) > 0 {
		opt.LocalMounts, opt.SharedKey = cfg.inMemory()
	}
	for _, o := range cfg.Outputs {
		entry, err := o.entry(cfg.Stdout)
		if err != nil {
			return opt, err
		}
		opt.Exports = append(opt.Exports, entry)
	}
	if cfg.NoCache {
		opt.FrontendAttrs["no-cache"] = ""
	}
	if cfg.Pull {
		opt.FrontendAttrs["image-resolve-mode"] = "pull"
	}
	if cfg.Platform != "" {
		opt.FrontendAttrs["platform"] = cfg.Platform
	}
	for key, value := range cfg.Labels {
		opt.FrontendAttrs["label:"+key] = value
	}
	return opt, nil
}

func (cfg Config) mounts(dir string) (map[string]fsutil.FS, error) {
	folder, err := fsutil.NewFS(dir)
	if err != nil {
		return nil, fmt.Errorf("read build context %s: %w", dir, err)
	}
	beside := folder
	if cfg.DockerfileDir != "" {
		if beside, err = fsutil.NewFS(cfg.DockerfileDir); err != nil {
			return nil, fmt.Errorf("read folder of the Dockerfile %s: %w", cfg.DockerfileDir, err)
		}
	}
	return map[string]fsutil.FS{"context": folder, "dockerfile": beside}, nil
}

func (cfg Config) solve(ctx context.Context, c *bkclient.Client, opt bkclient.SolveOpt) (Result, error) {
	display, err := cfg.display()
	if err != nil {
		return Result{}, err
	}
	var resp *bkclient.SolveResponse
	updates := make(chan *bkclient.SolveStatus)
	record := newRecord()
	eg, egctx := errgroup.WithContext(ctx)
	eg.Go(func() error {
		var err error
		resp, err = c.Solve(egctx, nil, opt, updates)
		return err
	})
	eg.Go(func() error {
		// Not egctx: the display shows the end of a build that failed.
		_, err := display.UpdateFrom(context.WithoutCancel(ctx), record.tee(updates))
		return err
	})
	if err := eg.Wait(); err != nil {
		return Result{}, cfg.failure(ctx, err, record)
	}
	return Result{Digest: digest.Digest(resp.ExporterResponse[exptypes.ExporterImageDigestKey])}, nil
}

func (cfg Config) display() (progressui.Display, error) {
	mode, out := progressui.AutoMode, cfg.Out
	switch cfg.Progress {
	case Plain:
		mode = progressui.PlainMode
	case Quiet:
		mode = progressui.QuietMode
	case Auto, "":
	default:
		return progressui.Display{}, fmt.Errorf("progress %q: want %s, %s or %s", cfg.Progress, Auto, Plain, Quiet)
	}
	if out == nil {
		out, mode = io.Discard, progressui.QuietMode
	}
	text, console := "", ""
	if cfg.Name != "" {
		text = "building image " + cfg.Namespace + "/" + cfg.Name
		console = "Building image " + cfg.Name
	}
	return progressui.NewDisplay(out, mode, progressui.WithDesc(text, console))
}

func (cfg Config) dockerfile() string {
	if cfg.Dockerfile == "" {
		return "Dockerfile"
	}
	return filepath.ToSlash(cfg.Dockerfile)
}
