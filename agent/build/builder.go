package build

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	goruntime "runtime"
	"sync"

	"github.com/moby/buildkit/executor/oci"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"lighter.dev/lighter/agent/image"
	"lighter.dev/lighter/api/client/clientset"
	"lighter.dev/lighter/api/v1alpha1"
)

// Images is the part of the API that a Builder needs.
type Images interface {
	Get(ctx context.Context, namespace, name string) (*v1alpha1.Image, error)
	// UpdateStatus writes the status of an object it got from Get. A conflict
	// is an error that apierrors.IsConflict knows.
	UpdateStatus(ctx context.Context, img *v1alpha1.Image) (*v1alpha1.Image, error)
}

// FromClient makes Images of the API's generated client.
func FromClient(c clientset.Interface) Images { return apiImages{c} }

type apiImages struct{ client clientset.Interface }

func (a apiImages) Get(ctx context.Context, namespace, name string) (*v1alpha1.Image, error) {
	return a.client.LighterV1alpha1().Images(namespace).Get(ctx, name, metav1.GetOptions{})
}

func (a apiImages) UpdateStatus(ctx context.Context, img *v1alpha1.Image) (*v1alpha1.Image, error) {
	return a.client.LighterV1alpha1().Images(img.Namespace).UpdateStatus(ctx, img, metav1.UpdateOptions{})
}

// Events records what happened to an object; record.EventRecorder is one.
type Events interface {
	Event(object runtime.Object, eventtype, reason, message string)
}

// Config says what a Builder works with.
type Config struct {
	// Root is the folder of the build cache's databases.
	Root string
	// Store is where results go and base images come from.
	Store *image.Store
	// NodeName is written to Image.status.nodeName.
	NodeName string
	// Images is the API.
	Images Images
	// Events may be nil.
	Events Events
	// CgroupParent is the cgroup below which RUN steps run; "" is the
	// runtime's default.
	CgroupParent string
	// Runtime is the OCI runtime for RUN steps: runc, else crun, if empty.
	Runtime string
	// Parallelism is how many builds run at the same time; 0 is one for each
	// CPU, but two at least: while one waits for a download, another works.
	Parallelism int
	// Memory, in bytes, and CPUs, in thousandths, bound the RUN steps of all
	// builds together; 0 is no limit. They need CgroupParent.
	Memory, MilliCPUs int64
	// Network attaches RUN steps; nil is the host's network.
	Network Network
	// DNS are the name servers of RUN steps; nil is the host's.
	DNS *oci.DNSConfig
	// Log gets one line per decision.
	Log *slog.Logger
}

func (c Config) parallelism() int {
	if c.Parallelism > 0 {
		return c.Parallelism
	}
	return max(2, goruntime.NumCPU())
}

// Builder builds Images on one host.
type Builder struct {
	cfg     Config
	log     *slog.Logger
	journal journal

	run    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu     sync.Mutex
	engine *engine
	closed bool
	turns  map[string]*turn

	bridges bridges
	slots   chan struct{} // one for each build that may run
}

// New makes a Builder and removes what a killed agent left: mounts and folders
// of steps, unfinished results. Builds that were cut off are reported as
// cancelled. BuildKit itself starts with the first build.
func New(ctx context.Context, cfg Config) (*Builder, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Events == nil {
		cfg.Events = noEvents{}
	}
	if err := os.MkdirAll(cfg.Root, 0o711); err != nil {
		return nil, fmt.Errorf("open builder: %w", err)
	}
	j, err := openJournal(cfg.Root)
	if err != nil {
		return nil, fmt.Errorf("open builder: %w", err)
	}
	if err := sweep(ctx, cfg); err != nil {
		return nil, fmt.Errorf("clean up after the last run: %w", err)
	}
	if err := limitSteps(cfg); err != nil {
		return nil, err
	}
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	b := &Builder{cfg: cfg, log: cfg.Log, journal: j, run: run, cancel: cancel, turns: map[string]*turn{}}
	b.bridges.byRef = map[string]*bridge{}
	b.slots = make(chan struct{}, cfg.parallelism())
	left, err := j.list()
	if err != nil {
		cancel()
		return nil, fmt.Errorf("open builder: %w", err)
	}
	if err := b.recover(ctx, left); err != nil {
		return nil, errors.Join(fmt.Errorf("clean up after the last run: %w", err), b.Close())
	}
	return b, nil
}

// recover deals with builds that a killed agent left.
func (b *Builder) recover(ctx context.Context, left []entry) error {
	cutOff := false
	for _, e := range left {
		cutOff = cutOff || e.Outcome == nil
		b.settle(e)
	}
	if !cutOff {
		return nil
	}
	e, leave, err := b.enter()
	if err != nil {
		b.log.Warn("leftovers of an unfinished build stay until the build engine can start", "error", err)
		return nil // a host without a runtime still has to start
	}
	defer leave()
	return e.dropUnfinished(ctx)
}

// Close cancels running builds, waits for them and stops BuildKit. The Store
// stays open. A process must not open the same Root again after it has built
// there: BuildKit's content hash cache is global and remembers the old database.
func (b *Builder) Close() error {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	b.cancel()
	b.wg.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.engine == nil {
		return nil
	}
	err := b.engine.Close()
	b.engine = nil
	if err != nil {
		return fmt.Errorf("stop build engine: %w", err)
	}
	return nil
}

// enter returns BuildKit, started if need be, and keeps Close waiting until the
// function that it returns is called.
func (b *Builder) enter() (*engine, func(), error) {
	leave, err := b.join()
	if err != nil {
		return nil, nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.engine == nil {
		e, err := newEngine(b.cfg)
		if err != nil {
			leave()
			return nil, nil, err
		}
		b.engine = e
		b.log.Info("build engine started")
	}
	return b.engine, leave, nil
}

// join keeps Close waiting until leave is called.
func (b *Builder) join() (leave func(), err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, errClosed
	}
	b.wg.Add(1)
	return b.wg.Done, nil
}

var errClosed = errors.New("the agent is stopping: another try builds elsewhere")

type noEvents struct{}

func (noEvents) Event(runtime.Object, string, string, string) {}
