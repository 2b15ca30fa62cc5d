package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// echoBuilder answers each connection with what it is sent.
func echoBuilder(context.Context) (net.Conn, error) {
	here, there := net.Pipe()
	go func() {
		defer there.Close()
		_, _ = io.Copy(there, there)
	}()
	return here, nil
}

func TestOfferBuildKit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.sock")
	ctx, cancel := context.WithCancel(t.Context())
	printed, out := io.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- offerBuildKit(ctx, "unix://"+path, out, io.Discard, echoBuilder) }()
	line := make([]byte, 256)
	n, err := printed.Read(line)
	if err != nil || strings.TrimSpace(string(line[:n])) != "unix://"+path {
		t.Fatalf("printed %q, %v", line[:n], err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("socket: %v, %v", info, err)
	}
	if _, err := listenLocally(ctx, "unix://"+path); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("the same socket twice: %v", err)
	}
	var clients sync.WaitGroup
	for range 3 {
		clients.Go(func() {
			conn, err := net.Dial("unix", path)
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			if _, err := conn.Write([]byte("hello")); err != nil {
				t.Error(err)
			}
			got := make([]byte, 5)
			if _, err := io.ReadFull(conn, got); err != nil || string(got) != "hello" {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
	clients.Wait()
	open, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	cancel()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("an open connection keeps it from ending")
	}
}

func TestBuildKitMistakes(t *testing.T) {
	for address, want := range map[string]string{
		"tcp://0.0.0.0:0":        "in your name",
		"tcp://example.test:123": "in your name",
		"tcp://127.0.0.1":        "missing port",
		"unix://relative":        "want unix:///PATH",
		"/path":                  "want unix:///PATH",
		"unix:///no/such/dir/s":  "no such file",
	} {
		if _, err := listenLocally(t.Context(), address); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", address, err, want)
		}
	}
	stale := filepath.Join(t.TempDir(), "s.sock")
	old, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	old.SetUnlinkOnClose(false)
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}
	fresh, err := listenLocally(t.Context(), "unix://"+stale)
	if err != nil {
		t.Fatalf("a socket that was left: %v", err)
	}
	defer fresh.Close()
	broken := errors.New("images \"none\" not found")
	err = offerBuildKit(t.Context(), "unix://"+stale, &bytes.Buffer{}, io.Discard, func(context.Context) (net.Conn, error) { return nil, broken })
	if !errors.Is(err, broken) {
		t.Errorf("an Image that is not there: %v", err)
	}
}
