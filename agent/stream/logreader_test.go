package stream

import (
	"bytes"
	"context"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// logFile writes a log; entries are "stream tag text".
func logFile(t *testing.T, path string, entries ...string) {
	t.Helper()
	file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	for i, entry := range entries {
		_, _ = fmt.Fprintf(file, "2026-11-23T10:00:%02d.000000000Z %s\n", i, entry)
	}
}

func read(t *testing.T, path, query string) string {
	t.Helper()
	opts, err := logOptions(httptest.NewRequest("GET", "/?"+query, nil))
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	l := &logReader{path: path, opts: opts, out: newFlushWriter(w)}
	if err := l.copy(t.Context()); err != nil {
		t.Fatal(err)
	}
	return w.Body.String()
}

func TestReadLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	logFile(t, path+".20261123-090000.000000000", "stdout F oldest")
	logFile(t, path+".20261123-093000.000000000", "stdout F older", "stderr F bad")
	logFile(t, path, "stdout F one", "stdout P tw", "stderr F in between", "stdout F o", "stdout F three")
	const all = "oldest\nolder\nbad\none\ntwin between\no\nthree\n"
	for query, want := range map[string]string{
		"":                               all,
		"tailLines=0":                    "",
		"tailLines=1":                    "three\n",
		"tailLines=2":                    "o\nthree\n",
		"tailLines=4":                    "one\ntwin between\no\nthree\n",
		"tailLines=6":                    "older\nbad\none\ntwin between\no\nthree\n",
		"tailLines=99":                   all,
		"limitBytes=9":                   "oldest\nol",
		"limitBytes=0":                   "",
		"stream=Stderr":                  "bad\nin between\n",
		"stream=Stdout&tailLines=3":      "two\nthree\n",
		"sinceTime=2026-11-23T10:00:03Z": "o\nthree\n",
		"timestamps=true&tailLines=1":    "2026-11-23T10:00:04.000000000Z three\n",
	} {
		if got := read(t, path, query); got != want {
			t.Errorf("%s: got %q, want %q", query, got, want)
		}
	}
}

func TestReadLongLines(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	long := strings.Repeat("x", 100_000)
	logFile(t, path, "stdout F first", "stdout P "+long, "stdout F "+long, "stdout F last")
	if got := read(t, path, ""); got != "first\n"+long+long+"\nlast\n" {
		t.Errorf("got %d bytes", len(got))
	}
	for tail, want := range map[string]int{"1": 5, "2": 5 + 200_001, "3": 5 + 200_001 + 6} {
		if got := read(t, path, "tailLines="+tail); len(got) != want {
			t.Errorf("tail %s: got %d bytes, want %d", tail, len(got), want)
		}
	}
}

func TestUnfinishedLineAtTheEnd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	logFile(t, path, "stdout F one", "stdout F two", "stdout P prompt> ")
	if got := read(t, path, "tailLines=2"); got != "two\nprompt> " {
		t.Errorf("got %q", got)
	}
}

func TestBadLogOptions(t *testing.T) {
	for _, query := range []string{"follow=maybe", "tailLines=x", "tailLines=-1", "sinceTime=today", "stream=both"} {
		if _, err := logOptions(httptest.NewRequest("GET", "/?"+query, nil)); err == nil {
			t.Errorf("%s was accepted", query)
		}
	}
}

// TestFollowAcrossRotations writes and rotates faster than the reader may look.
func TestFollowAcrossRotations(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	logFile(t, path, "stdout F begin")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ended := make(chan struct{})
	w := httptest.NewRecorder()
	l := &logReader{path: path, opts: options{follow: true, tail: -1, limit: -1}, out: newFlushWriter(w), ended: ended}
	done := make(chan error, 1)
	go func() { done <- l.copy(ctx) }()
	want := bytes.NewBufferString("begin\n")
	n := 0
	for round := range 20 {
		for range 10 {
			n++
			logFile(t, path, fmt.Sprintf("stdout F line %d", n))
			_, _ = fmt.Fprintf(want, "line %d\n", n)
		}
		if err := os.Rename(path, fmt.Sprintf("%s.20261123-%06d", path, round)); err != nil {
			t.Fatal(err)
		}
		logFile(t, path)
	}
	logFile(t, path, "stdout F end")
	close(ended)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	want.WriteString("end\n")
	if w.Body.String() != want.String() {
		t.Errorf("got %d bytes, want %d:\n%s", w.Body.Len(), want.Len(), w.Body.String())
	}
}
