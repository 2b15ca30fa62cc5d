package buildclient

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	bkclient "github.com/moby/buildkit/client"
	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/util/grpcerrors"
	"google.golang.org/grpc/codes"
)

// tailLines is how much of a failed step's output an error quotes when no
// progress was shown.
const tailLines = 20

// Failure is a build that ran and failed: the fault is in the Dockerfile or in
// what it runs, not in the cluster.
type Failure struct {
	// Source is the excerpt of the Dockerfile with the failing line marked, ""
	// if the failure has no line.
	Source string
	// Output is the end of the failing step's output.
	Output string
	err    error
}

// Error is for people: file and line, the cause, the step's output.
func (f *Failure) Error() string {
	parts := []string{strings.TrimPrefix(f.err.Error(), "failed to solve: ")}
	if f.Output != "" {
		parts = append(parts, "The end of its output:\n"+f.Output)
	}
	if f.Source != "" {
		parts = append(parts, f.Source)
	}
	return strings.Join(parts, "\n")
}

// Unwrap is BuildKit's error.
func (f *Failure) Unwrap() error { return f.err }

func (cfg Config) failure(ctx context.Context, err error, rec *record) error {
	if ctx.Err() != nil {
		return fmt.Errorf("build cancelled: %w", ctx.Err())
	}
	if grpcerrors.Code(err) == codes.Unavailable {
		return fmt.Errorf("the connection to the builder broke, its host may be gone; another try goes to another host: %w", err)
	}
	var source strings.Builder
	for _, s := range errdefs.Sources(err) {
		if s.Print(&source) == nil && source.Len() > 0 {
			break
		}
	}
	f := &Failure{Source: strings.TrimRight(source.String(), "\n"), err: err}
	var vertex *errdefs.VertexError
	if errors.As(err, &vertex) {
		f.Output = rec.of(vertex.Digest)
	}
	return f
}

// record keeps the output of each step while the display shows it.
type record struct {
	mu    sync.Mutex
	steps map[string][]string
}

func newRecord() *record { return &record{steps: map[string][]string{}} }

// tee notes and passes on.
func (r *record) tee(in <-chan *bkclient.SolveStatus) chan *bkclient.SolveStatus {
	out := make(chan *bkclient.SolveStatus)
	go func() {
		defer close(out)
		for st := range in {
			r.note(st)
			out <- st
		}
	}()
	return out
}

func (r *record) note(st *bkclient.SolveStatus) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range st.Logs {
		step := l.Vertex.String()
		lines := append(r.steps[step], strings.Split(strings.TrimRight(string(l.Data), "\n"), "\n")...)
		r.steps[step] = lines[max(0, len(lines)-tailLines):]
	}
}

func (r *record) of(step string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.steps[step], "\n")
}
