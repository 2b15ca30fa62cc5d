package hostapi

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"time"

	"lighter.dev/lighter/api/agentapi"
)

// Report takes the progress of long work. It may be called by several goroutines.
type Report = func(agentapi.Progress)

// Images is the host's image store. Errors are of errdefs' kinds where a client
// can do something about them. A namespace says in whose name it is asked, see
// package agentapi.
type Images interface {
	Images(ctx context.Context, namespace string) ([]agentapi.Image, error)
	Details(ctx context.Context, namespace, ref string) (agentapi.ImageDetails, error)
	// Save writes nothing before it knows that all images are here.
	Save(ctx context.Context, w io.Writer, namespace string, refs ...string) error
	Pull(ctx context.Context, namespace, ref string, auth []agentapi.Credential, report Report) (agentapi.Result, error)
	// Push sends an image to the registry that to names, which is ref if empty.
	Push(ctx context.Context, namespace, ref, to string, auth []agentapi.Credential, report Report) (agentapi.Result, error)
	// RemoveImage and PruneImages concern what was pulled, never the content of an
	// Image object.
	RemoveImage(ctx context.Context, ref string, force bool) (agentapi.Removed, error)
	// PruneImages removes unused images without a name, or all unused ones, that
	// came longer ago than until.
	PruneImages(ctx context.Context, all bool, until time.Duration) (agentapi.Removed, error)
}

// Content makes the content of Image objects, and reports it in their status.
type Content interface {
	// Import reads an archive; ref chooses one image of several.
	Import(ctx context.Context, namespace, image, ref string, edits agentapi.Edits, archive io.Reader, report Report) (agentapi.Result, error)
	// Commit keeps the file system of a container of this host.
	Commit(ctx context.Context, namespace, image, pod, container string, edits agentapi.Edits, report Report) (agentapi.Result, error)
}

// Containers knows the containers of this host's pods.
type Containers interface {
	Top(ctx context.Context, name agentapi.ContainerName) ([]agentapi.Process, error)
	Changes(ctx context.Context, name agentapi.ContainerName) ([]agentapi.Change, error)
	// Stats is about all containers of a pod that run.
	Stats(ctx context.Context, namespace, pod string) ([]agentapi.ContainerUsage, error)
	// Signal sends a signal to the first process, by its name.
	Signal(ctx context.Context, name agentapi.ContainerName, signal string) error
}

// Disk measures.
type Disk interface {
	Usage(ctx context.Context) (agentapi.Usage, error)
}

// Config holds the parts of the host. The paths of a part that is nil do not exist.
type Config struct {
	Images     Images
	Content    Content
	Containers Containers
	Disk       Disk
	Log        *slog.Logger
}

type handler struct {
	Config
	mux *http.ServeMux
}

// New serves the paths of package agentapi.
func New(cfg Config) http.Handler {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	h := &handler{Config: cfg, mux: http.NewServeMux()}
	if cfg.Images != nil {
		h.mux.HandleFunc("GET "+agentapi.PathImages, answer(h.list))
		h.mux.HandleFunc("GET "+agentapi.PathInspect, answer(h.details))
		h.mux.HandleFunc("GET "+agentapi.PathSave, h.serveSave)
		h.mux.HandleFunc("POST "+agentapi.PathPull, h.stream(h.pull))
		h.mux.HandleFunc("POST "+agentapi.PathPush, h.stream(h.push))
		h.mux.HandleFunc("POST "+agentapi.PathRemove, answer(h.remove))
		h.mux.HandleFunc("POST "+agentapi.PathPrune, answer(h.prune))
	}
	if cfg.Content != nil {
		h.mux.HandleFunc("POST "+agentapi.PathImport, h.stream(h.importArchive))
		h.mux.HandleFunc("POST "+agentapi.PathCommit, h.stream(h.commit))
	}
	if cfg.Containers != nil {
		h.mux.HandleFunc("GET "+agentapi.PathTop, answer(h.top))
		h.mux.HandleFunc("GET "+agentapi.PathChanges, answer(h.changes))
		h.mux.HandleFunc("GET "+agentapi.PathStats, answer(h.stats))
		h.mux.HandleFunc("POST "+agentapi.PathSignal, answer(h.signal))
	}
	if cfg.Disk != nil {
		h.mux.HandleFunc("GET "+agentapi.PathUsage, answer(h.usage))
	}
	return h.mux
}

// Paths are what has to be mounted to reach all of New's handler, as patterns of
// http.ServeMux.
func Paths() []string {
	return []string{agentapi.PathImages, agentapi.PathImages + "/", agentapi.PathContainers + "/", agentapi.PathUsage}
}
