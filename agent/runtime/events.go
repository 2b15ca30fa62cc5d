package runtime

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sys/unix"
)

// eventQueue is a set of container IDs with a channel at its end.
type eventQueue struct {
	out  chan string
	wake chan struct{}
	// known filters out the temporary files from which conmon renames.
	known func(id string) bool

	mu      sync.Mutex
	pending map[string]struct{}
	order   []string
}

// newEventQueue watches the directory to which conmon renames exit files.
func newEventQueue(ctx context.Context, exits string, known func(string) bool, log *slog.Logger) (*eventQueue, error) {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("watch exit files: %w", err)
	}
	if err := watcher.Add(exits); err != nil {
		_ = watcher.Close()
		return nil, fmt.Errorf("watch exit files: %w", err)
	}
	q := &eventQueue{
		out:     make(chan string),
		wake:    make(chan struct{}, 1),
		known:   known,
		pending: map[string]struct{}{},
	}
	go q.watch(ctx, watcher, exits, log)
	go q.deliver(ctx)
	return q, nil
}

// add never blocks.
func (q *eventQueue) add(id string) {
	q.mu.Lock()
	if _, waits := q.pending[id]; !waits {
		q.pending[id] = struct{}{}
		q.order = append(q.order, id)
	}
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func (q *eventQueue) next() (string, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.order) == 0 {
		return "", false
	}
	id := q.order[0]
	q.order = q.order[1:]
	delete(q.pending, id)
	return id, true
}

func (q *eventQueue) deliver(ctx context.Context) {
	for {
		id, ok := q.next()
		if !ok {
			select {
			case <-ctx.Done():
				return
			case <-q.wake:
			}
			continue
		}
		select {
		case <-ctx.Done():
			return
		case q.out <- id:
		}
	}
}

func (q *eventQueue) watch(ctx context.Context, watcher *fsnotify.Watcher, exits string, log *slog.Logger) {
	defer func() { _ = watcher.Close() }()
	for {
		select {
		case <-ctx.Done():
			return
		case event, ok := <-watcher.Events:
			if !ok {
				return
			}
			if name := filepath.Base(event.Name); event.Has(fsnotify.Create) && q.known(name) {
				q.add(name)
			}
		case err, ok := <-watcher.Errors:
			if !ok {
				return
			}
			log.Warn("exit file watch lost events, looking at all", "err", err)
			q.addAll(exits)
		}
	}
}

func (q *eventQueue) addAll(exits string) {
	entries, err := os.ReadDir(exits)
	if err != nil {
		return
	}
	for _, entry := range entries {
		if q.known(entry.Name()) {
			q.add(entry.Name())
		}
	}
}

// supervise reports a conmon that ends, with an exit file or without. The
// wait is on a pidfd in the poller: a goroutine, no thread, no fork.
func (e *Engine) supervise(c *container) {
	if !e.conmonAlive(&c.rec) {
		e.events.add(c.id)
		return
	}
	done, err := watchExit(e.life, c.rec.ConmonPID, c.rec.ConmonStart)
	if err != nil {
		e.events.add(c.id)
		return
	}
	id := c.id
	go func() {
		<-done
		if e.life.Err() == nil {
			e.events.add(id)
		}
	}()
}

// watchExit returns a channel that closes when the process ends or ctx does.
func watchExit(ctx context.Context, pid int, start uint64) (<-chan struct{}, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), "pidfd")
	if startTime(pid) != start {
		_ = file.Close()
		return nil, unix.ESRCH
	}
	conn, err := file.SyscallConn()
	if err != nil {
		_ = file.Close()
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = file.SetReadDeadline(time.Now()) })
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() { _ = file.Close() }()
		defer stop()
		// A pidfd is readable from the moment its process has ended.
		_ = conn.Read(func(fd uintptr) bool {
			polled := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
			n, err := unix.Poll(polled, 0)
			return n > 0 || (err != nil && !errors.Is(err, unix.EINTR))
		})
	}()
	return done, nil
}

// fileTimeout bounds the wait of watchFor.
const fileTimeout = 5 * time.Second

// watchFor reports once a file exists. The watch is set up when it returns.
func watchFor(ctx context.Context, path string) (<-chan error, error) {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, err
	}
	if err := watcher.Add(filepath.Dir(path)); err != nil {
		_ = watcher.Close()
		return nil, err
	}
	done := make(chan error, 1)
	go func() {
		defer func() { _ = watcher.Close() }()
		ctx, cancel := context.WithTimeout(ctx, fileTimeout)
		defer cancel()
		for !exists(path) {
			select {
			case <-ctx.Done():
				done <- fmt.Errorf("wait for %s: %w", path, ctx.Err())
				return
			case <-watcher.Events:
			case <-watcher.Errors: //nolint:errcheck // whatever it was, the loop looks again
			}
		}
		done <- nil
	}()
	return done, nil
}
