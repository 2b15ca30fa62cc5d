package stream

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/containerd/errdefs"
)

// Config is what a handler needs.
type Config struct {
	Pods    Pods
	Runtime Runtime
	// NodeName appears in /stats/summary.
	NodeName string
	// Authorize refuses a request by an error; nil allows all. See ByCertificate.
	Authorize func(*http.Request) error
	// Extra are more handlers by http.ServeMux pattern, such as "/build/"; they
	// are authorised as all others are.
	Extra map[string]http.Handler
	Log   *slog.Logger
}

// Timeouts of streams, the kubelet's.
const (
	idleTimeout     = 4 * time.Hour
	creationTimeout = 30 * time.Second
)

type handler struct {
	cfg Config
	log *slog.Logger
	mux *http.ServeMux
}

// NewHandler serves the agent's endpoint. The caller serves it over TLS with
// client certificates verified if given.
func NewHandler(cfg Config) http.Handler {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	h := &handler{cfg: cfg, log: cfg.Log, mux: http.NewServeMux()}
	h.mux.HandleFunc("GET /containerLogs/{namespace}/{pod}/{container}", h.serveLogs)
	for _, at := range []string{"/{namespace}/{pod}/{container}", "/{namespace}/{pod}/{uid}/{container}"} {
		h.mux.HandleFunc("/exec"+at, h.serveExec)
		h.mux.HandleFunc("/attach"+at, h.serveAttach)
		h.mux.HandleFunc("POST /run"+at, h.serveRun)
	}
	for _, at := range []string{"/{namespace}/{pod}", "/{namespace}/{pod}/{uid}"} {
		h.mux.HandleFunc("/portForward"+at, h.servePortForward)
	}
	h.mux.HandleFunc("GET /pods", h.servePods)
	h.mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, "ok") })
	h.mux.HandleFunc("GET /metrics", h.serveMetrics)
	h.mux.HandleFunc("GET /stats/summary", h.serveSummary)
	for pattern, extra := range cfg.Extra {
		h.mux.Handle(pattern, extra)
	}
	return h
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if h.cfg.Authorize != nil {
		if err := h.cfg.Authorize(r); err != nil {
			h.log.Warn("request refused", "path", r.URL.Path, "from", r.RemoteAddr, "err", err)
			code := http.StatusForbidden
			if errdefs.IsUnauthorized(err) {
				code = http.StatusUnauthorized
			}
			http.Error(w, err.Error(), code)
			return
		}
	}
	h.mux.ServeHTTP(w, r)
}

// target finds the pod and the container that a path names and answers itself if
// there is none; then ok is false.
func (h *handler) target(w http.ResponseWriter, r *http.Request) (pod Pod, c Container, ok bool) {
	pod, ok = h.pod(w, r)
	if !ok {
		return pod, c, false
	}
	name := r.PathValue("container")
	if c, ok = pod.container(name); !ok {
		http.Error(w, fmt.Sprintf("container %q not found in pod %q", name, pod.Name), http.StatusNotFound)
	}
	return pod, c, ok
}

func (h *handler) pod(w http.ResponseWriter, r *http.Request) (Pod, bool) {
	name := r.PathValue("pod")
	pod, err := h.cfg.Pods.Lookup(r.PathValue("namespace"), name, r.PathValue("uid"))
	switch {
	case errdefs.IsNotFound(err):
		http.Error(w, fmt.Sprintf("pod %q does not exist on this node", name), http.StatusNotFound)
	case err != nil:
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
	return pod, err == nil
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // the client went away
}
