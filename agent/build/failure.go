package build

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/solver/errdefs"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

const (
	// tailLines and tailBytes bound what a failed build quotes of a step's output.
	tailLines = 20
	tailBytes = 8 << 10
)

// failureMessage is what a person reads when a build failed: file and line,
// the instruction, what went wrong, and the end of the step's output.
func failureMessage(err error, output *outputTail) string {
	var b strings.Builder
	if sources := errdefs.Sources(err); len(sources) > 0 {
		if where := sourceLine(sources[0]); where != "" {
			b.WriteString(where + ": ")
		}
	}
	b.WriteString(strings.TrimPrefix(err.Error(), "failed to solve: "))
	var vertex *errdefs.VertexError
	if errors.As(err, &vertex) {
		if tail := output.of(vertex.Digest); tail != "" {
			fmt.Fprintf(&b, "\nThe end of its output:\n%s", tail)
		}
	}
	return b.String()
}

// explained adds to a step's error what its output means, where people would
// have to look that up. The client reads it, too.
func explained(err error, output *outputTail) error {
	var vertex *errdefs.VertexError
	if !errors.As(err, &vertex) || !strings.Contains(output.of(vertex.Digest), "exec format error") {
		return err
	}
	return fmt.Errorf("%w: the step's program is for another architecture than this host: build on a host of that architecture (--node), "+
		"run the step in a stage FROM --platform=$BUILDPLATFORM, or install an emulator on the host (qemu-user-static, with binfmt_misc)", err)
}

// sourceLine is "Dockerfile:4: RUN make".
func sourceLine(src *errdefs.Source) string {
	if src.Info == nil || len(src.Ranges) == 0 || src.Ranges[0].Start == nil {
		return ""
	}
	line := int(src.Ranges[0].Start.Line)
	lines := strings.Split(string(src.Info.Data), "\n")
	if line < 1 || line > len(lines) {
		return fmt.Sprintf("%s:%d", src.Info.Filename, line)
	}
	return fmt.Sprintf("%s:%d: %s", src.Info.Filename, line, strings.TrimSpace(lines[line-1]))
}

// outputTail keeps the end of each step's output. It is fed as if it were one
// more client that follows the build's progress.
type outputTail struct {
	ctx   context.Context
	mu    sync.Mutex
	steps map[string][]byte
}

func newOutputTail(ctx context.Context) *outputTail {
	return &outputTail{ctx: ctx, steps: map[string][]byte{}}
}

func (t *outputTail) add(resp *controlapi.StatusResponse) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, l := range resp.Logs {
		buf := append(t.steps[l.Vertex], l.Msg...)
		if len(buf) > tailBytes {
			buf = append([]byte(nil), buf[len(buf)-tailBytes:]...)
		}
		t.steps[l.Vertex] = buf
	}
}

// of is the last lines of one step, "" if it printed nothing.
func (t *outputTail) of(step string) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	text := strings.TrimRight(string(t.steps[step]), "\n")
	if text == "" {
		return ""
	}
	lines := strings.Split(text, "\n")
	return strings.Join(lines[max(0, len(lines)-tailLines):], "\n")
}

// statusStream makes outputTail the receiving end of a gRPC Status call that
// never leaves the process.
type statusStream struct{ *outputTail }

var _ grpc.ServerStreamingServer[controlapi.StatusResponse] = statusStream{}

func (s statusStream) Send(m *controlapi.StatusResponse) error { s.add(m); return nil }
func (s statusStream) SendMsg(m any) error {
	if resp, ok := m.(*controlapi.StatusResponse); ok {
		s.add(resp)
	}
	return nil
}
func (s statusStream) Context() context.Context     { return s.ctx }
func (s statusStream) RecvMsg(any) error            { return errors.New("a status stream has no input") }
func (s statusStream) SetHeader(metadata.MD) error  { return nil }
func (s statusStream) SendHeader(metadata.MD) error { return nil }
func (s statusStream) SetTrailer(metadata.MD)       {}
