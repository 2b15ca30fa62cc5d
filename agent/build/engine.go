package build

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"

	"github.com/containerd/containerd/v2/core/diff/apply"
	"github.com/containerd/containerd/v2/plugins/diff/walking"
	"github.com/containerd/platforms"
	"github.com/moby/buildkit/cache/metadata"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/cmd/buildkitd/config"
	"github.com/moby/buildkit/control"
	"github.com/moby/buildkit/executor/oci"
	"github.com/moby/buildkit/executor/resources"
	"github.com/moby/buildkit/executor/runcexecutor"
	"github.com/moby/buildkit/frontend"
	"github.com/moby/buildkit/frontend/gateway/forwarder"
	"github.com/moby/buildkit/session"
	containerdsnapshot "github.com/moby/buildkit/snapshot/containerd"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/solver/bboltcachestorage"
	"github.com/moby/buildkit/util/db/boltutil"
	"github.com/moby/buildkit/util/disk"
	"github.com/moby/buildkit/util/leaseutil"
	"github.com/moby/buildkit/version"
	"github.com/moby/buildkit/worker"
	"github.com/moby/buildkit/worker/base"
	"github.com/moby/buildkit/worker/label"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"

	"lighter.dev/lighter/agent/image"
)

// frontendName is the only frontend there is. A "# syntax=" line cannot choose
// another, as it would have to be fetched and run.
const frontendName = "dockerfile.v0"

// cacheFile is in Config.Root from the first build on.
const cacheFile = "cache.db"

// engine is BuildKit on the stores of package image.
type engine struct {
	*control.Controller
	worker *base.Worker
	stop   context.CancelFunc
}

// newEngine assembles BuildKit. It takes some 10 ms and some MB of memory,
// which is why it waits for the first build.
func newEngine(cfg Config) (*engine, error) {
	w, err := newWorker(cfg)
	if err != nil {
		return nil, fmt.Errorf("start build engine: %w", err)
	}
	wc := &worker.Controller{}
	if err := wc.Add(w); err != nil {
		return nil, errors.Join(fmt.Errorf("start build engine: %w", err), w.Close())
	}
	sessions, err := session.NewManager()
	if err != nil {
		return nil, errors.Join(err, wc.Close())
	}
	cache, err := bboltcachestorage.NewStore(filepath.Join(cfg.Root, cacheFile))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open build cache: %w", err), wc.Close())
	}
	history, err := boltutil.SafeOpen(filepath.Join(cfg.Root, "history.db"), 0o600, &bolt.Options{NoFreelistSync: true})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open build history: %w", err), cache.Close(), wc.Close())
	}
	stop, cancel := context.WithCancel(context.Background())
	c, err := control.NewController(control.Opt{
		SessionManager:   sessions,
		WorkerController: wc,
		Frontends: map[string]frontend.Frontend{
			frontendName: forwarder.NewGatewayForwarder(wc.Infos(), dockerfileFrontend(cfg.Store)),
		},
		CacheManager:   solver.NewCacheManager(context.Background(), "local", cache, worker.NewCacheResultStorage(wc)),
		HistoryDB:      history,
		CacheStore:     cache,
		LeaseManager:   w.LeaseManager(),
		ContentStore:   w.ContentStore(),
		GarbageCollect: w.GarbageCollect,
		GracefulStop:   stop.Done(),
	})
	if err != nil {
		cancel()
		return nil, errors.Join(fmt.Errorf("start build engine: %w", err), history.Close(), cache.Close(), wc.Close())
	}
	return &engine{Controller: c, worker: w, stop: cancel}, nil
}

// Close stops BuildKit. The stores of package image stay open.
func (e *engine) Close() error {
	e.stop()
	return e.Controller.Close()
}

// dropUnfinished removes file systems of steps that never ended because their
// agent was killed. BuildKit would keep them until the disk is full.
func (e *engine) dropUnfinished(ctx context.Context) error {
	return e.prune(ctx, client.PruneInfo{All: true, Filter: []string{"mutable,type==regular"}})
}

// newWorker fills BuildKit's worker with our parts. BuildKit's own constructor
// would open stores of its own and keep every layer twice.
func newWorker(cfg Config) (*base.Worker, error) {
	runtime, err := findRuntime(cfg.Runtime)
	if err != nil {
		return nil, err
	}
	monitor, err := resources.NewMonitor()
	if err != nil {
		return nil, err
	}
	networks := networkProviders(cfg.Network)
	exe, err := runcexecutor.New(runcexecutor.Opt{
		Root:                executorRoot(cfg.Root),
		CommandCandidates:   []string{runtime},
		ProcessMode:         oci.ProcessSandbox,
		DNS:                 cfg.DNS,
		ResourceMonitor:     monitor,
		DefaultCgroupParent: cfg.CgroupParent,
	}, networks)
	if err != nil {
		return nil, err
	}
	md, err := metadata.NewStore(filepath.Join(cfg.Root, "metadata.db"))
	if err != nil {
		return nil, fmt.Errorf("open build metadata: %w", err)
	}
	id, err := base.ID(cfg.Root)
	if err != nil {
		return nil, errors.Join(err, md.Close())
	}
	be := cfg.Store.Backend()
	content := containerdsnapshot.NewContentStore(be.Content, image.Namespace)
	return base.NewWorker(context.Background(), base.WorkerOpt{
		ID:               id,
		Root:             cfg.Root,
		Labels:           map[string]string{label.Executor: "oci", label.Snapshotter: be.SnapshotterName, label.Hostname: cfg.NodeName},
		Platforms:        []ocispec.Platform{platforms.Normalize(platforms.DefaultSpec())},
		GCPolicy:         gcPolicy(cfg.Root),
		BuildkitVersion:  client.BuildkitVersion{Package: version.Package, Version: version.Version},
		NetworkProviders: networks,
		Executor:         exe,
		Snapshotter:      containerdsnapshot.NewSnapshotter(be.SnapshotterName, be.Snapshots, image.Namespace, nil),
		ContentStore:     content,
		Applier:          apply.NewFileSystemApplier(content),
		Differ:           walking.NewWalkingDiff(content),
		ImageStore:       stagingStore{be.Images, cfg.Store},
		RegistryHosts:    cfg.Store.RegistryHosts(),
		LeaseManager:     leaseutil.WithNamespace(be.Leases, image.Namespace),
		GarbageCollect:   be.GarbageCollect,
		MetadataStore:    md,
		MountPoolRoot:    filepath.Join(cfg.Root, "cachemounts"),
		ResourceMonitor:  monitor,
	})
}

// findRuntime prefers runc: the executor needs "run --keep", which crun has
// from 1.9 on only.
func findRuntime(configured string) (string, error) {
	for _, name := range []string{configured, "runc", "crun"} {
		if name == "" {
			continue
		}
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errors.New("no runtime for RUN steps: install the package runc")
}

// gcPolicy is BuildKit's default: caches are dropped by age, and as a whole
// kept to a share of the disk.
func gcPolicy(root string) []client.PruneInfo {
	stat, err := disk.GetDiskStat(root)
	if err != nil {
		return nil
	}
	var out []client.PruneInfo
	for _, rule := range config.DefaultGCPolicy(config.GCConfig{}, stat) {
		out = append(out, client.PruneInfo{
			Filter: rule.Filters, All: rule.All, KeepDuration: rule.KeepDuration.Duration,
			ReservedSpace: rule.ReservedSpace.AsBytes(stat),
			MaxUsedSpace:  rule.MaxUsedSpace.AsBytes(stat),
			MinFreeSpace:  rule.MinFreeSpace.AsBytes(stat),
		})
	}
	return out
}

func executorRoot(root string) string { return filepath.Join(root, "executor") }
