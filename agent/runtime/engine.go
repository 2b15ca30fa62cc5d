package runtime

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"sync"

	"github.com/containerd/errdefs"

	"lighter.dev/lighter/agent/cgroup"
)

// Config is what an Engine needs to know. All paths are absolute.
type Config struct {
	// StateDir holds specs and exit codes; it has to survive a reboot.
	StateDir string
	// RunDir holds bundles, sockets and pinned namespaces; it may be a tmpfs.
	RunDir string
	// Runtime is the path or the name of an OCI runtime. "" takes the first of
	// crun and runc that is able to create a container on this host.
	Runtime string
	// Runtimes are further ones, by the name that a container asks for. Each has to be
	// able to create a container.
	Runtimes map[string]string
	// Conmon is the path of conmon; "" looks it up in PATH.
	Conmon string
	// CgroupRoot is the cgroup above all pods, such as "/lighter".
	CgroupRoot string
	Log        *slog.Logger
}

// Engine runs containers. Its methods may be called concurrently; those on one
// container are serialised.
type Engine struct {
	cfg     Config
	log     *slog.Logger
	cgroups *cgroup.Tree
	oci     ociRuntime
	more    map[string]ociRuntime
	filters filters
	bootID  string
	events  *eventQueue
	// life ends the watches; it is New's context.
	life context.Context

	mu         sync.Mutex
	containers map[string]*container
}

// container is the engine's view of one container; the files say the same.
type container struct {
	mu   sync.Mutex // serialises the steps of this container
	id   string
	spec ContainerSpec
	oci  ociRuntime
	rec  record
	// gone is set when Delete is through, for those that waited for mu.
	gone bool
	// attached is closed by the first Attach.
	attached     chan struct{}
	attachedOnce sync.Once
}

func newContainer(id string) *container {
	return &container{id: id, attached: make(chan struct{})}
}

// New checks the programs, picks the OCI runtime and adopts all containers that
// a former process left. It stops watching when ctx ends; containers run on.
func New(ctx context.Context, cfg Config) (*Engine, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Conmon == "" {
		cfg.Conmon = "conmon"
	}
	conmon, err := exec.LookPath(cfg.Conmon)
	if err != nil {
		return nil, fmt.Errorf("conmon is needed to run containers (package conmon): %w", err)
	}
	cfg.Conmon = conmon
	e := &Engine{cfg: cfg, log: cfg.Log, life: ctx, containers: map[string]*container{}}
	for _, dir := range []string{e.containersDir(), e.exitsDir(), e.bundlesDir(), e.ociRoot(), e.namespacesDir()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("make the engine's directories: %w", err)
		}
	}
	if e.bootID, err = readBootID(); err != nil {
		return nil, err
	}
	if e.cgroups, err = cgroup.New(cfg.CgroupRoot); err != nil {
		return nil, err
	}
	if e.oci, err = e.pickRuntime(ctx); err != nil {
		return nil, err
	}
	if e.more, err = e.openRuntimes(ctx); err != nil {
		return nil, err
	}
	// Watch first, read afterwards: an exit in between is seen twice, not never.
	if e.events, err = newEventQueue(ctx, e.exitsDir(), e.knows, e.log); err != nil {
		return nil, err
	}
	if err := e.adopt(); err != nil {
		return nil, err
	}
	return e, nil
}

// Runtime names the OCI runtime in use and its path.
func (e *Engine) Runtime() (name, path string) { return e.oci.flavour, e.oci.path }

// Events delivers the IDs of containers whose state may have changed. An ID that
// waits to be received is not queued again, and nothing ever blocks on it.
func (e *Engine) Events() <-chan string { return e.events.out }

func (e *Engine) containersDir() string { return filepath.Join(e.cfg.StateDir, "containers") }
func (e *Engine) exitsDir() string      { return filepath.Join(e.cfg.StateDir, "exits") }
func (e *Engine) bundlesDir() string    { return filepath.Join(e.cfg.RunDir, "bundles") }
func (e *Engine) ociRoot() string       { return filepath.Join(e.cfg.RunDir, "oci") }
func (e *Engine) namespacesDir() string { return filepath.Join(e.cfg.RunDir, "ns") }

func (e *Engine) stateDir(id string) string  { return filepath.Join(e.containersDir(), id) }
func (e *Engine) exitFile(id string) string  { return filepath.Join(e.exitsDir(), id) }
func (e *Engine) bundleDir(id string) string { return filepath.Join(e.bundlesDir(), id) }
func (e *Engine) rootfs(id string) string    { return filepath.Join(e.bundleDir(id), "rootfs") }

// containerCgroup is relative to the cgroup file system's root, as the OCI
// spec's cgroupsPath is.
func (e *Engine) containerCgroup(spec *ContainerSpec) string {
	return e.cgroups.Path(spec.CgroupParent, spec.ID)
}

// lookup returns a container with its lock held.
func (e *Engine) lookup(id string) (*container, error) {
	e.mu.Lock()
	c := e.containers[id]
	e.mu.Unlock()
	if c == nil {
		return nil, fmt.Errorf("container %s: %w", id, errdefs.ErrNotFound)
	}
	c.mu.Lock()
	if c.gone {
		c.mu.Unlock()
		return nil, fmt.Errorf("container %s: %w", id, errdefs.ErrNotFound)
	}
	return c, nil
}

func (e *Engine) knows(id string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.containers[id] != nil
}

// adopt loads every container of which a trace is on disk.
func (e *Engine) adopt() error {
	ids := map[string]bool{}
	for _, dir := range []string{e.containersDir(), e.bundlesDir()} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return fmt.Errorf("adopt containers: %w", err)
		}
		for _, entry := range entries {
			ids[entry.Name()] = true
		}
	}
	for id := range ids {
		c := e.loadContainer(id)
		e.mu.Lock()
		e.containers[id] = c
		e.mu.Unlock()
		if err := e.resume(c); err != nil {
			e.log.Warn("container stays paused", "id", id, "err", err)
		}
		if c.rec.ConmonPID != 0 {
			e.supervise(c)
		}
	}
	if len(ids) > 0 {
		e.log.Info("adopted containers", "count", len(ids))
	}
	return nil
}

// loadContainer reads what is left of a container. Files that are missing or
// torn leave zero values: such a container is unknown and can be deleted.
func (e *Engine) loadContainer(id string) *container {
	c := newContainer(id)
	errSpec := readJSON(filepath.Join(e.stateDir(id), specFile), &c.spec)
	errRec := readJSON(filepath.Join(e.stateDir(id), recordFile), &c.rec)
	if err := errors.Join(errSpec, errRec); err != nil {
		e.log.Warn("container left half-made", "id", id, "err", err)
	}
	c.spec.ID = id
	var err error
	if c.oci, err = e.runtimeOf(&c.spec); err != nil {
		// What holds for all of them does for this one: it can be stopped and deleted.
		c.oci = e.oci
		e.log.Warn("a container's OCI runtime is not configured any more", "id", id, "err", err)
	}
	if c.rec.ConmonPID == 0 {
		// Died between conmon's start and our record: conmon's file knows.
		c.rec.ConmonPID = readPID(filepath.Join(e.bundleDir(id), conmonPIDFile))
		c.rec.ConmonStart = startTime(c.rec.ConmonPID)
		c.rec.Boot = e.bootID
	}
	return c
}

// List returns every container on disk, whichever process started it, ordered by ID.
func (e *Engine) List(ctx context.Context) ([]Status, error) {
	e.mu.Lock()
	ids := make([]string, 0, len(e.containers))
	for id := range e.containers {
		ids = append(ids, id)
	}
	e.mu.Unlock()
	sort.Strings(ids)
	out := make([]Status, 0, len(ids))
	for _, id := range ids {
		st, err := e.Status(ctx, id)
		if errdefs.IsNotFound(err) {
			continue // deleted meanwhile
		}
		if err != nil {
			return nil, err
		}
		out = append(out, st)
	}
	return out, nil
}
