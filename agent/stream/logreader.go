package stream

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
)

// logReader copies a container's log in CRI format ("<time> <stream> <tag>
// <text>") from its rotated files and its current one. A tag P marks a part of a
// line that the next entry of the stream continues, F its end.
type logReader struct {
	path string
	opts options
	out  *flushWriter
	// ended, with opts.follow, closes when nothing will be written any more.
	ended <-chan struct{}

	file    *os.File
	reader  *bufio.Reader
	partial []byte // of a physical line that is being written
	midLine map[string]bool
	written int64
}

// lookAgain is how often a follower reads though nothing told it to: an event that
// the kernel or a busy machine swallows costs time, and no line.
const lookAgain = time.Second

// errLimit ends the copy when limitBytes are written.
var errLimit = errors.New("limit reached")

func (l *logReader) copy(ctx context.Context) error {
	l.midLine = map[string]bool{}
	if err := l.openStart(); err != nil {
		return err
	}
	defer func() { _ = l.file.Close() }()
	var changes *fsnotify.Watcher
	var again <-chan time.Time
	if l.ended != nil {
		var err error
		if changes, err = fsnotify.NewWatcher(); err != nil {
			return err
		}
		defer func() { _ = changes.Close() }()
		if err := changes.Add(filepath.Dir(l.path)); err != nil {
			return err
		}
		l.out.begin()
		ticker := time.NewTicker(lookAgain)
		defer ticker.Stop()
		again = ticker.C
	}
	for ctx.Err() == nil {
		// Asked before reading: what it wrote before its end is read below.
		ended := l.hasEnded()
		err := l.drain()
		if errors.Is(err, errLimit) {
			return nil
		}
		if err != nil {
			return err
		}
		moved, err := l.nextFile()
		if err != nil {
			return err
		}
		if moved {
			continue
		}
		if l.ended == nil || ended {
			l.out.flush()
			return nil
		}
		l.out.flush()
		if err := l.wait(ctx, changes, again); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// wait returns when there may be something to read, or ctx has ended.
func (l *logReader) wait(ctx context.Context, changes *fsnotify.Watcher, again <-chan time.Time) error {
	select {
	case <-ctx.Done():
	case <-l.ended:
	case <-changes.Events:
	case <-again:
	case err := <-changes.Errors:
		if err != nil && !errors.Is(err, fsnotify.ErrEventOverflow) {
			return err
		}
	}
	return nil
}

func (l *logReader) hasEnded() bool {
	select {
	case <-l.ended: // nil blocks
		return true
	default:
		return false
	}
}

// files are the rotated files, oldest first, and the current one. The suffix is
// a time stamp, so names sort by age.
func (l *logReader) files() []string {
	rotated, _ := filepath.Glob(escapeGlob(l.path) + ".*") // sorted
	return append(rotated, l.path)
}

func escapeGlob(path string) string {
	return strings.NewReplacer("*", `\*`, "?", `\?`, "[", `\[`, `\`, `\\`).Replace(path)
}

// openStart opens the file in which to begin and seeks there.
func (l *logReader) openStart() error {
	if l.opts.tail >= 0 {
		if found, err := l.openTail(); found || err != nil {
			return err
		}
	}
	oldest := func() string { return l.files()[0] }
	file, err := l.pin(oldest)
	if errors.Is(err, os.ErrNotExist) {
		file, err = l.pin(oldest) // it was being renamed, and is there by another name
	}
	if err != nil {
		return fmt.Errorf("log file: %w", err)
	}
	l.use(file)
	return nil
}

// openTail looks for the file in which the last lines begin, and seeks there. It has
// not found one if there are fewer.
func (l *logReader) openTail() (found bool, err error) {
	files, want := l.files(), l.opts.tail
	for i := len(files) - 1; i >= 0; i-- {
		file, err := os.Open(files[i])
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return false, err
		}
		offset, lines, err := tailOffset(file, want)
		if err == nil && lines >= want {
			if _, err = file.Seek(offset, io.SeekStart); err == nil {
				l.use(file)
				return true, nil
			}
		}
		if err := errors.Join(err, file.Close()); err != nil {
			return false, fmt.Errorf("log file %s: %w", files[i], err)
		}
		want -= lines
	}
	return false, nil
}

// use reads on in a file.
func (l *logReader) use(file *os.File) {
	if l.file != nil {
		_ = l.file.Close()
	}
	l.file, l.partial = file, nil
	if l.reader == nil {
		l.reader = bufio.NewReaderSize(file, 32<<10)
	} else {
		l.reader.Reset(file)
	}
}

// nextFile moves on if the file that was read is no longer the current one.
// conmon writes to a renamed file until it has opened the new one, so what is
// left in the old one is read first.
func (l *logReader) nextFile() (bool, error) {
	own, err := l.file.Stat()
	if err != nil {
		return false, err
	}
	current, err := os.Stat(l.path)
	if errors.Is(err, os.ErrNotExist) || err == nil && os.SameFile(own, current) {
		return false, nil // just being renamed, or nothing new
	}
	if err != nil {
		return false, err
	}
	if err := l.drain(); err != nil {
		if errors.Is(err, errLimit) {
			return false, nil
		}
		return false, err
	}
	file, err := l.pin(func() string { return l.after(own) })
	if errors.Is(err, os.ErrNotExist) {
		return false, nil // just being renamed, or nothing follows
	}
	if err != nil {
		return false, err
	}
	l.use(file)
	return true, nil
}

// pin opens the file that choose names. Whoever rotates meanwhile gives its name to a
// later file: it is chosen anew until the choice is what was opened.
func (l *logReader) pin(choose func() string) (*os.File, error) {
	for {
		path := choose()
		file, err := os.Open(path)
		if errors.Is(err, os.ErrNotExist) && path != "" && path != l.path {
			continue // it has become too old
		}
		if err != nil {
			return nil, err
		}
		opened, err := file.Stat()
		if err != nil {
			return nil, errors.Join(err, file.Close())
		}
		if is, err := os.Stat(choose()); err == nil && os.SameFile(is, opened) {
			return file, nil
		}
		_ = file.Close()
	}
}

// after is the path of the file that follows one, "" if there is none so far. If that
// one is deleted, it is the oldest.
func (l *logReader) after(own os.FileInfo) string {
	files := l.files()
	next := 0
	for i, path := range files {
		if info, err := os.Stat(path); err == nil && os.SameFile(own, info) {
			next = i + 1
		}
	}
	if next == len(files) {
		return ""
	}
	return files[next]
}

// drain reads to the end of the file.
func (l *logReader) drain() error {
	for {
		chunk, err := l.reader.ReadSlice('\n')
		if len(chunk) > 0 && chunk[len(chunk)-1] == '\n' {
			line := chunk
			if len(l.partial) > 0 {
				line = append(l.partial, chunk...)
				l.partial = nil
			}
			if err := l.entry(line); err != nil {
				return err
			}
			continue
		}
		l.partial = append(l.partial, chunk...)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return err
		}
	}
}

// stampFormat is how the kubelet prints times: all of the same width.
const stampFormat = "2006-01-02T15:04:05.000000000Z07:00"

// entry writes one entry of the log.
func (l *logReader) entry(line []byte) error {
	at, stream, tag, text, ok := parseEntry(line)
	if !ok || l.opts.stream != "" && l.opts.stream != "All" && !strings.EqualFold(l.opts.stream, stream) {
		return nil
	}
	if !l.opts.since.IsZero() || l.opts.timestamps {
		when, err := time.Parse(time.RFC3339Nano, at)
		if err == nil && when.Before(l.opts.since) {
			return nil
		}
		if l.opts.timestamps && !l.midLine[stream] {
			if err := l.write([]byte(when.Format(stampFormat) + " ")); err != nil {
				return err
			}
		}
	}
	l.midLine[stream] = tag == 'P'
	if tag == 'P' {
		text = bytes.TrimSuffix(text, []byte("\n"))
	}
	return l.write(text)
}

func (l *logReader) write(p []byte) error {
	if l.opts.limit >= 0 {
		p = p[:min(int64(len(p)), l.opts.limit-l.written)]
	}
	n, err := l.out.Write(p)
	l.written += int64(n)
	if err == nil && l.opts.limit >= 0 && l.written >= l.opts.limit {
		return errLimit
	}
	return err
}
