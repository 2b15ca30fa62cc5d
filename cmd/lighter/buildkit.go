package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/spf13/cobra"
	"k8s.io/client-go/rest"

	"lighter.dev/lighter/agent/build/buildclient"
)

// defaultBuildKitSocket is where "lighter buildkit" listens unless told otherwise.
func defaultBuildKitSocket(image string) string {
	dir := os.Getenv("XDG_RUNTIME_DIR")
	if dir == "" {
		dir = os.TempDir()
	}
	return "unix://" + filepath.Join(dir, "lighter-buildkit-"+image+".sock")
}

func newBuildKitCommand() *cobra.Command {
	config := configFlags()
	var listen, node string
	cmd := &cobra.Command{
		Use: "buildkit IMAGE", Short: "Offer BuildKit's API for one Image to buildctl and docker buildx", Args: cobra.ExactArgs(1),
		Long: `Listens on a local socket. Whoever connects speaks to BuildKit on one of the
cluster's hosts, as if it ran here, and builds that Image object: its spec says
target, arguments and names. Nobody else can connect: the socket is its owner's.`,
		Example: `  lighter buildkit shop --listen unix:///tmp/shop.sock &
  buildctl --addr unix:///tmp/shop.sock build --frontend dockerfile.v0 --local context=. --local dockerfile=.
  docker buildx create --name shop --driver remote unix:///tmp/shop.sock && docker buildx build --builder shop .`,
		RunE: func(cmd *cobra.Command, args []string) error {
			api, namespace, err := target(config)
			if err != nil {
				return err
			}
			if listen == "" {
				listen = defaultBuildKitSocket(args[0])
			}
			return offerBuildKit(cmd.Context(), listen, cmd.OutOrStdout(), cmd.ErrOrStderr(), tunnelTo(api, namespace, args[0], node))
		},
	}
	config.AddFlags(cmd.Flags())
	cmd.Flags().StringVar(&listen, "listen", "", "where to listen: unix:///PATH or tcp://127.0.0.1:PORT (default: a socket of the Image's own, which is printed)")
	cmd.Flags().StringVar(&node, "node", "", "host that is to build (default: the cluster chooses)")
	return cmd
}

// tunnelTo makes connections to the builder of an Image.
func tunnelTo(api *rest.Config, namespace, image, node string) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) {
		return buildclient.Dial(ctx, buildclient.Config{REST: api, Namespace: namespace, Name: image, Node: node})
	}
}

// offerBuildKit listens until ctx ends. One connection is made at once: what is
// wrong with the Image or with one's rights is better said here than in each
// client's error.
func offerBuildKit(ctx context.Context, address string, out, errOut io.Writer, dial func(context.Context) (net.Conn, error)) error {
	first, err := dial(ctx)
	if err != nil {
		return err
	}
	_ = first.Close() // it has told what it was to tell
	listener, err := listenLocally(ctx, address)
	if err != nil {
		return usageError{fmt.Errorf("--listen: %w", err)}
	}
	defer context.AfterFunc(ctx, func() { _ = listener.Close() })()
	fmt.Fprintln(out, address)
	var open sync.WaitGroup
	defer open.Wait()
	for {
		conn, err := listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return errors.Join(err, listener.Close())
		}
		open.Go(func() {
			if err := tunnel(ctx, conn, dial); err != nil {
				fmt.Fprintln(errOut, "lighter buildkit:", err)
			}
		})
	}
}

// listenLocally takes only what stays on this machine: the socket is as good as
// the user's credentials.
func listenLocally(ctx context.Context, address string) (net.Listener, error) {
	network, where, ok := strings.Cut(address, "://")
	switch {
	case ok && network == "unix" && filepath.IsAbs(where):
		return listenUnix(ctx, where)
	case ok && network == "tcp":
		host, _, err := net.SplitHostPort(where)
		if err != nil {
			return nil, err
		}
		if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			return nil, fmt.Errorf("%s: anybody who reaches it could build in your name: want an address of this machine alone, such as 127.0.0.1", address)
		}
		return new(net.ListenConfig).Listen(ctx, network, where)
	}
	return nil, fmt.Errorf("%q: want unix:///PATH or tcp://127.0.0.1:PORT", address)
}

// listenUnix replaces a socket that nobody listens on any more.
func listenUnix(ctx context.Context, path string) (net.Listener, error) {
	if info, err := os.Lstat(path); err == nil && info.Mode()&os.ModeSocket != 0 {
		if conn, err := new(net.Dialer).DialContext(ctx, "unix", path); err == nil {
			return nil, errors.Join(fmt.Errorf("%s: another process listens there", path), conn.Close())
		}
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	return listener, nil
}

// tunnel connects conn to a builder until either side hangs up or ctx ends.
func tunnel(ctx context.Context, conn net.Conn, dial func(context.Context) (net.Conn, error)) error {
	defer conn.Close()
	builder, err := dial(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() {
		_ = conn.Close()
		_ = builder.Close()
	})
	defer stop()
	var both sync.WaitGroup
	for _, pair := range [][2]net.Conn{{conn, builder}, {builder, conn}} {
		both.Go(func() {
			defer cancel()
			// How a connection ends is its users' business.
			_, _ = io.Copy(pair[0], pair[1])
		})
	}
	both.Wait()
	return nil
}
