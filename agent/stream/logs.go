package stream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// serveLogs serves GET /containerLogs/…, a pod's log subresource.
func (h *handler) serveLogs(w http.ResponseWriter, r *http.Request) {
	pod, c, ok := h.target(w, r)
	if !ok {
		return
	}
	opts, err := logOptions(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	path, err := logPath(&pod, &c, opts.previous)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	out := newFlushWriter(w)
	reader := &logReader{path: path, opts: opts, out: out}
	if opts.follow && c.Running && !opts.previous {
		reader.ended = h.ended(ctx, c.ID)
	}
	w.Header().Set("Content-Type", "text/plain")
	err = reader.copy(ctx)
	if err == nil || ctx.Err() != nil {
		if !out.wrote {
			out.begin()
		}
		return
	}
	if !out.wrote {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	h.log.Warn("log stream broken", "pod", pod.Name, "container", c.Name, "err", err)
}

// ended closes when a container ends.
func (h *handler) ended(ctx context.Context, id string) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := h.cfg.Runtime.Wait(ctx, id); err != nil && ctx.Err() == nil {
			h.log.Debug("wait for a container", "id", id, "err", err)
		}
	}()
	return done
}

// logPath chooses the attempt, with the kubelet's words if there is none.
func logPath(pod *Pod, c *Container, previous bool) (string, error) {
	switch {
	case previous && c.PreviousLogPath == "":
		return "", fmt.Errorf("previous terminated container %q in pod %q not found", c.Name, pod.Name)
	case previous:
		return c.PreviousLogPath, nil
	case c.LogPath != "":
		return c.LogPath, nil
	}
	reason := c.Waiting
	switch reason {
	case "":
		return "", fmt.Errorf("container %q in pod %q is not available", c.Name, pod.Name)
	case "ErrImagePull":
		reason = "image can't be pulled"
	case "ImagePullBackOff":
		reason = "trying and failing to pull image"
	}
	return "", fmt.Errorf("container %q in pod %q is waiting to start: %s", c.Name, pod.Name, reason)
}

// options is the part of core/v1 PodLogOptions that reaches a node.
type options struct {
	follow, previous, timestamps bool
	since                        time.Time
	tail                         int64 // -1: all
	limit                        int64 // -1: none
	stream                       string
}

func logOptions(r *http.Request) (options, error) {
	query := r.URL.Query()
	out := options{tail: -1, limit: -1, stream: query.Get("stream")}
	var errs []error
	flag := func(name string) bool {
		if !query.Has(name) || query.Get(name) == "" {
			return query.Has(name)
		}
		v, err := strconv.ParseBool(query.Get(name))
		if err != nil {
			errs = append(errs, fmt.Errorf("query parameter %s=%q is no boolean", name, query.Get(name)))
		}
		return v
	}
	number := func(name string, to *int64) bool {
		if query.Get(name) == "" {
			return false
		}
		v, err := strconv.ParseInt(query.Get(name), 10, 64)
		if err != nil || v < 0 {
			errs = append(errs, fmt.Errorf("query parameter %s=%q is no number", name, query.Get(name)))
			return false
		}
		*to = v
		return true
	}
	out.follow, out.previous, out.timestamps = flag("follow"), flag("previous"), flag("timestamps")
	number("tailLines", &out.tail)
	number("limitBytes", &out.limit)
	var seconds int64
	if number("sinceSeconds", &seconds) {
		out.since = metav1.Now().Add(-time.Duration(seconds) * time.Second)
	} else if text := query.Get("sinceTime"); text != "" {
		at, err := time.Parse(time.RFC3339, text)
		if err != nil {
			errs = append(errs, fmt.Errorf("query parameter sinceTime=%q is no RFC 3339 time", text))
		}
		out.since = at
	}
	switch out.stream {
	case "", corev1.LogStreamAll, corev1.LogStreamStdout, corev1.LogStreamStderr:
	default:
		errs = append(errs, fmt.Errorf("query parameter stream=%q: want All, Stdout or Stderr", out.stream))
	}
	return out, errors.Join(errs...)
}

// flushWriter sends at once what it gets: somebody is watching.
type flushWriter struct {
	w       io.Writer
	control *http.ResponseController
	wrote   bool
}

func newFlushWriter(w http.ResponseWriter) *flushWriter {
	return &flushWriter{w: w, control: http.NewResponseController(w)}
}

func (f *flushWriter) Write(p []byte) (int, error) {
	f.wrote = true
	return f.w.Write(p)
}

// begin sends the header, so that a follower of a silent log knows that it follows.
func (f *flushWriter) begin() {
	f.wrote = true
	f.flush()
}

func (f *flushWriter) flush() { _ = f.control.Flush() }
