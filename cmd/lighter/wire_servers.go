package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"time"

	"lighter.dev/lighter/controller/servers"
	"lighter.dev/lighter/controller/store"
)

// joinOptions say which servers a new one joins.
type joinOptions struct{ url, token string }

// folders are where this server keeps what makes it one.
func (s serverSettings) folders() servers.Folders {
	f := servers.Folders{PKI: filepath.Join(s.dataDir, "pki")}
	if len(s.etcd.endpoints) == 0 {
		f.Store = filepath.Join(s.dataDir, "etcd")
	}
	return f
}

// peer is where other servers' etcds reach this one's; invalid with an external etcd.
func (s serverSettings) peer() netip.AddrPort {
	if len(s.etcd.endpoints) > 0 {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(s.advertise, uint16(s.peerPort))
}

// address is host:port of the API.
func (s serverSettings) address() string {
	return netip.AddrPortFrom(s.advertise, uint16(s.port)).String()
}

func (s serverSettings) ranges() servers.Ranges {
	return servers.Ranges{ClusterCIDR: s.clusterCIDR.String(), ServiceCIDR: s.serviceCIDR.String(), Domain: s.domain}
}

// join makes this host a server of the cluster that --join names, unless it is
// one. It returns the members of etcd, for its first start.
func (p *controlPlane) join(ctx context.Context) ([]store.Member, error) {
	s, folders := p.settings, p.settings.folders()
	if s.join.url == "" {
		return nil, nil
	}
	joined, err := folders.Joined(s.join.token)
	if err != nil || joined {
		return nil, err
	}
	if s.join.token == "" {
		return nil, usageError{errors.New("--join: this host is no server of that cluster yet: give it a token (--token), which 'lighter token create --server' makes on a server")}
	}
	me := store.Server{Name: s.name, Address: s.address()}
	if peer := s.peer(); peer.IsValid() {
		me.PeerURL = "https://" + peer.String()
		if err := free(ctx, peer); err != nil {
			return nil, err
		}
	}
	p.log.Info("joining the other servers", "server", s.join.url, "as", s.name)
	joiner := servers.Joiner{URL: s.join.url, Token: s.join.token, Request: servers.Request{Server: me, Ranges: s.ranges()}, Log: p.log}
	reply, err := joiner.Join(ctx)
	if err != nil {
		return nil, err
	}
	return reply.Members, folders.Adopt(reply, me.PeerURL)
}

// free looks whether the port can be had, before others count on it.
func free(ctx context.Context, peer netip.AddrPort) error {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", peer.String())
	if err != nil {
		return fmt.Errorf("the port for other servers: %w: end what uses it, or set another --etcd-peer-port", err)
	}
	return l.Close()
}

func (p *controlPlane) serversHandler() http.Handler {
	return &servers.Handler{
		Store: p.store, Authority: p.authority, Ranges: p.settings.ranges(), Name: p.settings.name,
		Leader: p.leader, Log: p.log.With("part", "servers"),
	}
}

// introduce tells the other servers where this one is.
func (p *controlPlane) introduce(ctx context.Context) error {
	const retry = 5 * time.Second
	for {
		attempt, cancel := context.WithTimeout(ctx, retry)
		err := p.store.Introduce(attempt, p.settings.address())
		cancel()
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		}
		p.log.Warn("the other servers do not know yet where this one is", "error", err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(retry):
		}
	}
}
