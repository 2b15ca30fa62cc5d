package containers

import (
	"context"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/moby/term"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
)

// progress is one line about what is waited for. On a terminal it is written over
// and disappears; elsewhere only what takes long is printed, a line each.
type progress struct {
	out      io.Writer
	terminal bool

	mu   sync.Mutex
	last string
	over bool
}

func newProgress(out io.Writer) *progress {
	file, ok := out.(*os.File)
	return &progress{out: out, terminal: ok && term.IsTerminal(file.Fd())}
}

// show replaces the line. What is lasting is worth one elsewhere, too.
func (p *progress) show(text string, lasting bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over || text == p.last || text == "" {
		return
	}
	p.last = text
	switch {
	case p.terminal:
		fmt.Fprintf(p.out, "\r\x1b[K%s", text)
	case lasting:
		fmt.Fprintln(p.out, text)
	}
}

// end takes the line away.
func (p *progress) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.terminal && !p.over && p.last != "" {
		fmt.Fprint(p.out, "\r\x1b[K")
	}
	p.over = true
}

// watchEvents shows the pod's Events that tell why it takes long, until ctx ends.
// What failed is in the pod's status too, and will be its error.
func (c *Cluster) watchEvents(ctx context.Context, pod *corev1.Pod, line *progress) {
	events, err := c.Kube.CoreV1().Events(pod.Namespace).Watch(ctx, metav1.ListOptions{
		FieldSelector: fields.OneTermEqualSelector("involvedObject.uid", string(pod.UID)).String(),
	})
	if err != nil {
		return // the status says the same, only later
	}
	defer events.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case event, open := <-events.ResultChan():
			if !open {
				return
			}
			if e, ok := event.Object.(*corev1.Event); ok && (e.Reason == "Pulling" || e.Type == corev1.EventTypeWarning) {
				line.show(e.Message, e.Reason == "Pulling")
			}
		}
	}
}
