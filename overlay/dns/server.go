package dns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"time"

	mdns "github.com/miekg/dns"
	"golang.org/x/sys/unix"
	coreinformers "k8s.io/client-go/informers/core/v1"
	discoveryinformers "k8s.io/client-go/informers/discovery/v1"
	"k8s.io/client-go/tools/cache"
)

// Config is what a Server works with.
type Config struct {
	// Listen are the addresses to serve on, UDP and TCP. They need not exist yet.
	Listen []netip.AddrPort
	// PacketConns and Listeners are sockets to serve on in addition; Run closes them.
	PacketConns []net.PacketConn
	Listeners   []net.Listener
	// Domain is the cluster domain; "cluster.local" if empty.
	Domain string
	// ClusterCIDRs are the networks of pods and services: PTR questions about them are
	// answered here or not at all, never forwarded.
	ClusterCIDRs []netip.Prefix

	Services   coreinformers.ServiceInformer
	Slices     discoveryinformers.EndpointSliceInformer
	Namespaces coreinformers.NamespaceInformer

	// Upstreams are the resolvers for all other names, "address" or "address:port". If
	// empty, they are read from ResolvConf, and again whenever that file changes.
	Upstreams []string
	// ResolvConf is the host's resolver configuration; "/etc/resolv.conf" if empty.
	ResolvConf string
	Log        *slog.Logger
}

// Server answers DNS questions. One per host.
type Server struct {
	cfg     Config
	zone    string // fully qualified, lower case
	synced  []cache.InformerSynced
	forward *forwarder
	ready   chan struct{}
}

// New prepares a server and adds its indexes to the informers.
func New(cfg Config) (*Server, error) {
	if cfg.Domain == "" {
		cfg.Domain = "cluster.local"
	}
	if cfg.ResolvConf == "" {
		cfg.ResolvConf = "/etc/resolv.conf"
	}
	s := &Server{cfg: cfg, zone: strings.ToLower(mdns.Fqdn(cfg.Domain)), ready: make(chan struct{})}
	if _, ok := mdns.IsDomainName(s.zone); !ok || s.zone == "." {
		return nil, fmt.Errorf("cluster domain %q is no domain name", cfg.Domain)
	}
	services, slices := cfg.Services.Informer(), cfg.Slices.Informer()
	if err := errors.Join(addIndexes(services, serviceIndexes), addIndexes(slices, sliceIndexes)); err != nil {
		return nil, err
	}
	s.synced = []cache.InformerSynced{services.HasSynced, slices.HasSynced, cfg.Namespaces.Informer().HasSynced}
	var err error
	if s.forward, err = newForwarder(cfg, s.own); err != nil {
		return nil, err
	}
	return s, nil
}

// Ready is closed when all sockets are open.
func (s *Server) Ready() <-chan struct{} { return s.ready }

// own tells whether addr is one this server listens on.
func (s *Server) own(addr netip.AddrPort) bool {
	for _, listen := range s.cfg.Listen {
		if listen == addr {
			return true
		}
	}
	for _, conn := range s.cfg.PacketConns {
		if local, ok := conn.LocalAddr().(*net.UDPAddr); ok && local.AddrPort() == addr {
			return true
		}
	}
	return false
}

// Run serves until ctx ends. An address that cannot be listened on is an error.
func (s *Server) Run(ctx context.Context) error {
	servers, err := s.open(ctx)
	if err != nil {
		return err
	}
	failed := make(chan error, len(servers))
	var group, started sync.WaitGroup
	for _, server := range servers {
		started.Add(1)
		server.NotifyStartedFunc = sync.OnceFunc(started.Done)
		group.Go(func() {
			defer server.NotifyStartedFunc() // also if it never started
			if err := server.ActivateAndServe(); err != nil {
				failed <- err
			}
		})
	}
	started.Wait() // before that, a shutdown would be refused
	s.cfg.Log.Info("DNS is served", "listen", s.cfg.Listen, "domain", s.zone)
	close(s.ready)
	var result error
	select {
	case <-ctx.Done():
	case err := <-failed:
		result = fmt.Errorf("serve DNS: %w", err)
	}
	// Queries that wait for an upstream do not hold up the end for long.
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	for _, server := range servers {
		_ = server.ShutdownContext(end) // fails only for a server that ended by itself
	}
	group.Wait()
	return result
}

// open opens all sockets, or none.
func (s *Server) open(ctx context.Context) (servers []*mdns.Server, err error) {
	defer func() {
		if err == nil {
			return
		}
		for _, server := range servers {
			if server.PacketConn != nil {
				_ = server.PacketConn.Close()
			} else {
				_ = server.Listener.Close()
			}
		}
	}()
	packets := func(conn net.PacketConn) {
		servers = append(servers, &mdns.Server{PacketConn: conn, Handler: s, UDPSize: mdns.MaxMsgSize})
	}
	streams := func(listener net.Listener) {
		servers = append(servers, &mdns.Server{Listener: listener, Handler: s, IdleTimeout: idleTimeout})
	}
	for _, conn := range s.cfg.PacketConns {
		packets(conn)
	}
	for _, listener := range s.cfg.Listeners {
		streams(listener)
	}
	config := net.ListenConfig{Control: freeBind}
	for _, addr := range s.cfg.Listen {
		conn, err := config.ListenPacket(ctx, "udp", addr.String())
		if err != nil {
			return servers, fmt.Errorf("serve DNS on %s: %w", addr, err)
		}
		packets(conn)
		listener, err := config.Listen(ctx, "tcp", addr.String())
		if err != nil {
			return servers, fmt.Errorf("serve DNS on %s: %w", addr, err)
		}
		streams(listener)
	}
	return servers, nil
}

// idleTimeout closes TCP connections that ask nothing more (RFC 7766 suggests seconds).
func idleTimeout() time.Duration { return 8 * time.Second }

// freeBind lets a socket listen on an address before the bridge has it.
func freeBind(network, _ string, conn syscall.RawConn) error {
	level, option := unix.IPPROTO_IP, unix.IP_FREEBIND
	if strings.HasSuffix(network, "6") {
		level, option = unix.IPPROTO_IPV6, unix.IPV6_FREEBIND
	}
	var failed error
	err := conn.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), level, option, 1) })
	return errors.Join(err, failed)
}
