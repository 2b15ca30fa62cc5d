package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"lighter.dev/lighter/agent/stream"
)

// localAPI is what the host's own sockets serve: all that the API server may ask
// of this agent, for who may use the sockets owns the host.
func (h *host) localAPI() http.Handler {
	return stream.NewHandler(stream.Config{
		Pods: streamPods{h.pods}, Runtime: h.engine, NodeName: h.options.nodeName,
		Extra: h.hostPaths(),
		Log:   h.logOf("local"),
	})
}

// listenLocal opens the sockets of --hosts.
func (h *host) listenLocal(ctx context.Context) ([]net.Listener, error) {
	addresses, err := h.options.hosts.listeners(h.options.runDir)
	if err != nil {
		return nil, err
	}
	group, err := h.options.hosts.group()
	if err != nil {
		return nil, err
	}
	var open []net.Listener
	for _, at := range addresses {
		listener, err := h.listenAt(ctx, at, group)
		if err != nil {
			for _, other := range open {
				err = errors.Join(err, other.Close())
			}
			return nil, fmt.Errorf("--%s %s://%s: %w", flagHosts, at.network, at.address, err)
		}
		open = append(open, listener)
	}
	return open, nil
}

func (h *host) listenAt(ctx context.Context, at listenAddress, group int) (net.Listener, error) {
	if at.network == "unix" {
		return listenSocket(ctx, at.address, group)
	}
	config, err := h.options.hosts.tls.server()
	if err != nil {
		return nil, err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, at.network, at.address)
	if err != nil {
		return nil, err
	}
	return tls.NewListener(listener, config), nil
}

// serveLocal answers on one of the sockets until ctx ends.
func (h *host) serveLocal(ctx context.Context, listener net.Listener, handler http.Handler) error {
	server := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: headerTimeout,
		ErrorLog:          slog.NewLogLogger(h.logOf("local").Handler(), slog.LevelDebug),
		TLSNextProto:      map[string]func(*http.Server, *tls.Conn, http.Handler){}, // upgrades are HTTP/1.1's
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	h.log.Info("asked locally", "address", listener.Addr())
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s: %w", listener.Addr(), err)
	}
	return nil
}

// socket is a listener whose file goes when it is closed, unless another has taken
// its place by then.
type socket struct {
	*net.UnixListener
	path string
	file fs.FileInfo
}

// listenSocket makes a socket that root, and a group if it is not root's, may use.
// It is made in a folder of its own and moved to its place with its rights set, so
// that nobody finds it there before, and one that a killed agent left is replaced.
func listenSocket(ctx context.Context, path string, group int) (net.Listener, error) {
	if err := mayReplace(ctx, path); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	private, err := os.MkdirTemp(filepath.Dir(path), ".sock-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(private)
	made := filepath.Join(private, "s")
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: made, Net: "unix"})
	if err != nil {
		return nil, err
	}
	listener.SetUnlinkOnClose(false)
	mode := fs.FileMode(0o600)
	if group != 0 {
		mode = 0o660
	}
	if err := errors.Join(os.Chown(made, 0, group), os.Chmod(made, mode), os.Rename(made, path)); err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	file, err := os.Lstat(path)
	if err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	return &socket{listener, path, file}, nil
}

// mayReplace refuses a path at which there is something other than a socket that
// nobody answers on.
func mayReplace(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return errors.New("there is a file that is no socket; remove it or choose another path")
	}
	dialer := net.Dialer{Timeout: time.Second}
	connection, err := dialer.DialContext(ctx, "unix", path)
	if err != nil {
		return nil //nolint:nilerr // nobody is behind it: its process is gone
	}
	return errors.Join(errors.New("another process answers there; stop it or choose another path"), connection.Close())
}

// Addr is where clients find it.
func (s *socket) Addr() net.Addr { return &net.UnixAddr{Name: s.path, Net: "unix"} }

// Close implements net.Listener.
func (s *socket) Close() error {
	err := s.UnixListener.Close()
	if now, statErr := os.Lstat(s.path); statErr == nil && os.SameFile(now, s.file) {
		err = errors.Join(err, os.Remove(s.path))
	}
	return err
}
