package image

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/diff/apply"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/platforms"
	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// Namespace is the containerd namespace of everything in the store. Images and
// builds share it, so that a built layer is there once.
const Namespace = "lighter"

// lockWait is how long Open waits for another process to let go of the
// database. A stopping agent needs less.
const lockWait = 3 * time.Second

// Config says where a Store lives and whom it may ask.
type Config struct {
	// Root is the folder that the Store owns.
	Root string
	// Snapshotter is the storage driver: Overlayfs if empty.
	Snapshotter string
	// Peers finds other agents that hold an image; nil asks nobody.
	Peers PeerFinder
	// TLS is the client's side of mutual TLS towards peers; nil for tests over
	// plain HTTP.
	TLS *tls.Config
	// Builds knows the images that the cluster builds; nil knows none.
	Builds Builds
	// Users tells of containers by the IDs that Prepare got; nil takes each for a
	// running one.
	Users func(ctx context.Context, containerIDs []string) []User
	// Registries holds settings by registry host ("docker.io", "host:5000").
	Registries map[string]Registry
	// DefaultRegistry is where names without a registry are pulled from:
	// docker.io if empty.
	DefaultRegistry string
	// Log gets one line per decision.
	Log *slog.Logger

	// stall ends a transfer that has moved no byte for so long; stallTimeout if 0.
	stall time.Duration
}

// Store holds the images and container file systems of one host. All methods
// may be called at the same time.
type Store struct {
	cfg      Config
	log      *slog.Logger
	bolt     *bolt.DB
	meta     *metadata.DB
	backend  snapshots.Snapshotter
	content  content.Store
	images   images.Store
	leases   leases.Manager
	snap     snapshots.Snapshotter
	applier  diff.Applier
	platform platforms.MatchComparer
	peers    *http.Client
	flights  flightGroup
	blobs    keyedLock
	changed  broadcast
	asked    askedTimes
	turns    turns
	deaf     deafness
	gc       *collector
	started  time.Time

	close  sync.Once
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// Open opens or creates the store in cfg.Root and removes what an agent that
// was killed left half done. Close it after use; one process can have it open.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	if cfg.Snapshotter == "" {
		cfg.Snapshotter = Overlayfs
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.stall == 0 {
		cfg.stall = stallTimeout
	}
	if cfg.Users == nil {
		cfg.Users = func(_ context.Context, ids []string) (out []User) {
			for _, id := range ids {
				out = append(out, User{ID: id, Running: true})
			}
			return out
		}
	}
	if err := os.MkdirAll(cfg.Root, 0o711); err != nil {
		return nil, fmt.Errorf("open image store: %w", err)
	}
	db, err := openBolt(filepath.Join(cfg.Root, "meta.db"))
	if err != nil {
		return nil, err
	}
	s := &Store{cfg: cfg, log: cfg.Log, bolt: db, started: time.Now()}
	if err := s.assemble(ctx); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	if err := s.sweep(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("sweep image store: %w", err), s.backend.Close(), db.Close())
	}
	run, cancel := context.WithCancel(s.in(context.WithoutCancel(ctx)))
	s.cancel = cancel
	s.wg.Go(func() { s.gc.run(run) })
	return s, nil
}

func (s *Store) assemble(ctx context.Context) error {
	blobs, err := local.NewStore(filepath.Join(s.cfg.Root, "content"))
	if err != nil {
		return fmt.Errorf("open content store: %w", err)
	}
	if s.backend, err = openSnapshotter(ctx, s.cfg.Snapshotter, s.cfg.Root); err != nil {
		return err
	}
	s.meta = metadata.NewDB(s.bolt, blobs, map[string]snapshots.Snapshotter{s.cfg.Snapshotter: s.backend})
	if err := s.meta.Init(ctx); err != nil {
		return errors.Join(fmt.Errorf("prepare image database: %w", err), s.backend.Close())
	}
	s.content = s.meta.ContentStore()
	s.images = metadata.NewImageStore(s.meta)
	s.leases = metadata.NewLeaseManager(s.meta)
	s.snap = s.meta.Snapshotter(s.cfg.Snapshotter)
	s.applier = apply.NewFileSystemApplier(s.content)
	s.platform = platforms.Default()
	s.peers = newPeerClient(s.cfg.TLS, s.cfg.stall)
	s.gc = newCollector(s.meta, s.backend, s.log)
	s.meta.RegisterMutationCallback(s.gc.mutated)
	return nil
}

// openBolt opens the database, with an error that a person can act on when
// another process has it.
func openBolt(path string) (*bolt.DB, error) {
	db, err := bolt.Open(path, 0o600, &bolt.Options{
		Timeout:        lockWait,
		FreelistType:   bolt.FreelistMapType,
		NoFreelistSync: true,
	})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, fmt.Errorf("open image store: %s is in use by another process: stop the other agent or choose another data directory", path)
	}
	if err != nil {
		return nil, fmt.Errorf("open image store %s: %w", path, err)
	}
	return db, nil
}

// in puts the store's namespace into ctx, as containerd's libraries want it.
func (s *Store) in(ctx context.Context) context.Context {
	return namespaces.WithNamespace(ctx, Namespace)
}

// Snapshotter is the name of the storage driver in use.
func (s *Store) Snapshotter() string { return s.cfg.Snapshotter }

// Close stops background work and lets go of the database. Running pulls have
// to be cancelled before, through their context.
func (s *Store) Close() error {
	var err error
	s.close.Do(func() {
		s.cancel()
		s.wg.Wait()
		s.peers.CloseIdleConnections()
		err = errors.Join(s.backend.Close(), s.bolt.Close())
	})
	return err
}
